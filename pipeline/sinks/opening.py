"""From the name of an output to the sink that writes it."""

from __future__ import annotations

from pathlib import Path

from cliprl.engines import UsageError
from cliprl.pipeline.protocols import Scene, Sink
from cliprl.pipeline.sinks.camera import DEVICES, VirtualCamera
from cliprl.pipeline.sinks.coco import CocoSink
from cliprl.pipeline.sinks.events import EventSink
from cliprl.pipeline.sinks.group import NullSink
from cliprl.pipeline.sinks.masks import MaskSink
from cliprl.pipeline.sinks.network import NetworkSink, is_network
from cliprl.pipeline.sinks.video import CONTAINERS, VideoSink

NULL = "null:"


def open_sink(
    target: str | Path, scene: Scene, *, crf: float = 23, preset: str = "ultrafast", threads: int = 0
) -> Sink:
    """The sink for an output: `out.mp4`, `.mov`, `.mkv` a video, `masks/` a folder of PNGs, `x.coco.json`, `x.jsonl`, `null:`;
    or a stream: `rtsp://`, `rtmp://`, `srt://`, `udp://`, `live.m3u8`, `/dev/video9` a virtual camera.

    `crf`, `preset` and `threads` are VideoSink's. Raises UsageError where the name says nothing, the place can't be
    written, or the output would replace the input.
    """
    name, path = str(target), Path(target)
    if name == NULL:
        return NullSink()
    if name.startswith(DEVICES):
        return VirtualCamera(path, scene)
    if is_network(name):
        return NetworkSink(name, scene, crf=crf, preset=preset)
    if name.endswith("/") or path.is_dir():
        return MaskSink(path, scene)
    _check_place(path, scene)
    if path.suffix.lower() in CONTAINERS:
        return VideoSink(path, scene, crf=crf, preset=preset, threads=threads)
    if path.name.lower().endswith(".coco.json"):
        return CocoSink(path, scene)
    if path.suffix.lower() == ".jsonl":
        return EventSink(path, scene)
    kinds = f"{', '.join(CONTAINERS)}, .coco.json, .jsonl, .m3u8 or / (masks)"
    raise UsageError(f"'{target}' names no kind of output: end it in {kinds}, or give a URL")


def is_video(target: str, scene: Scene) -> bool:
    """Whether an output is a video file. Raises UsageError where it is the input itself."""
    path = Path(target)
    found = path.suffix.lower() in CONTAINERS and not (is_network(target) or target.endswith("/") or path.is_dir())
    if found:
        _check_place(path, scene)
    return found


def _check_place(path: Path, scene: Scene) -> None:
    source = Path(scene.stream.name)
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"'{path}' is the input itself: choose another name for the output")
