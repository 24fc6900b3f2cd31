"""The clip of a measurement: a file, or the rendered demo, written to a file first."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import av

from cliprl.engines import UsageError
from cliprl.engines.bundle.bundle import file_hash
from cliprl.pipeline import OutputSpec, Stream, open_sink, open_source

# The default clip, which anyone can render.
DEMO = "demo:?size=1280x720&seconds=10"
# Near the bit rate of a real surgical recording.
DEMO_CRF = 20


def clip_file(name: str, folder: Path) -> Path:
    """The clip as a video file: `demo:…` is rendered into `folder`, so that no figure contains the rendering.

    Raises UsageError if there is no such file.
    """
    if not name.startswith("demo:"):
        if not Path(name).is_file():
            raise UsageError(f"no clip '{name}': give a video file, or demo:?size=1280x720&seconds=10")
        return Path(name)
    path = folder / "demo.mp4"
    source = open_source(name)
    sink = open_sink(path, OutputSpec(source.info, ()), crf=DEMO_CRF, preset="veryfast")
    Stream(source, None, None, [sink]).run()
    return path


def scaled_clip(clip: str | Path, height: int, out: Path, frames: int) -> Path:
    """The first frames of a clip at another height, with the same aspect ratio, encoded as the demo is."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        video = source.streams.video[0]
        options = {"preset": "veryfast", "crf": f"{DEMO_CRF}"}
        stream: Any = target.add_stream("libx264", rate=video.average_rate or 25, options=options)
        stream.width, stream.height = 2 * round(video.width * height / video.height / 2), height
        stream.pix_fmt = "yuv420p"
        for frame in islice(source.decode(video), frames):
            scaled = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            scaled.pict_type = 0  # the encoder chooses its own key frames
            target.mux(stream.encode(scaled))
        target.mux(stream.encode(None))
    return out


def short_name(source: str) -> str:
    """A source's name without the folders of this machine, except the two that tell the images of one clip from another's."""
    return source if "=" in source else "/".join(Path(source).parts[-3:])


def describe_clip(name: str, path: Path) -> dict[str, Any]:
    """Name, hash, size, rate and length of the clip, for a result file."""
    with open_source(path) as source:
        info = source.info
    shown = name if name.startswith("demo:") else path.name
    return {
        "name": shown,
        "sha256": None if name.startswith("demo:") else file_hash(path),
        "size": f"{info.width}x{info.height}",
        "rate": float(info.rate) if info.rate else None,
        "frames": info.frames,
        "bytes": path.stat().st_size,
    }
