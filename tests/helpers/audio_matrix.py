"""Every sound in every container into every output: what is kept, as the table of pipeline/README.md.

`python tests/helpers/audio_matrix.py` writes the table anew. Cases run in child processes, for libav may
crash: then the case is known, and a new child goes on with the next.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import av
from sound_media import CONTAINERS, heard_seconds, make_media, payload, streams_of

from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.sinks import VideoSink
from cliprl.pipeline.sources import open_source

README = Path(__file__).parents[2] / "pipeline" / "README.md"
OUTPUTS = ("mp4", "mov", "mkv")
# Frames of each input, at 25 a second: some packets of each sound.
FRAMES = 6
_BEGIN, _END = "<!-- audio matrix: python tests/helpers/audio_matrix.py -->", "<!-- end of the audio matrix -->"
# Seconds that a child may take for one case.
_PATIENCE = 60.0
_PCM = {
    f"pcm {bits} {layout}": ((f"pcm_s{bits}le",), layout)
    for bits in (16, 24, 32)
    for layout in ("mono", "stereo", "5.1")
}
# Name of a row: the codec of each track, and their channels.
SOUNDS: dict[str, tuple[tuple[str, ...], str]] = {
    "none": ((), "mono"),
    **{name: ((name,), "stereo") for name in ("aac", "mp3", "mp2", "ac3", "eac3", "opus", "vorbis", "flac", "alac")},
    **_PCM,
    "wmav2": (("wmav2",), "stereo"),
    "two tracks": ((), "mono"),
}
# Two tracks that a container takes, where it does not take AAC and AC-3.
_TWO = {"webm": ("opus", "opus"), "mxf": ("pcm_s16le", "pcm_s24le"), "flv": ("aac", "mp3"), "mpg": ("mp2", "ac3")}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case. verdict: "kept", "noted", "no input" (the container does not take the sound), or what is wrong."""

    container: str
    sound: str
    output: str
    verdict: str

    @property
    def is_right(self) -> bool:
        """Whether nothing was lost without a word."""
        return self.verdict in ("kept", "noted", "no input")


def cases() -> list[tuple[str, str]]:
    """Container and sound of each input."""
    return [(container, sound) for container in CONTAINERS for sound in SOUNDS]


def run_matrix(wanted: Sequence[tuple[str, str]], folder: Path) -> list[Result]:
    """The result of each output of each input."""
    results, left = [], list(wanted)
    while left:
        found = list(_run_child(left, folder))
        results += found
        done = len({(r.container, r.sound) for r in found})
        left = left[done:]
        assert done, "the child does not even begin"
    return results


def _run_child(left: Sequence[tuple[str, str]], folder: Path) -> Iterator[Result]:
    """The results of one child, until it ends, crashes or hangs."""
    command = [sys.executable, __file__, "--child", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(left))
        child.stdin.close()
        begun: tuple[str, ...] = ()
        for line in _lines(child.stdout.fileno()):
            container, sound, output, verdict = json.loads(line)
            if verdict:
                yield Result(container, sound, output, verdict)
            begun = () if verdict else (container, sound, output)
        child.kill()
    if begun:
        yield Result(*begun, f"exit {child.returncode}")


def _lines(handle: int) -> Iterator[str]:
    """Lines as they come, until the end or until none comes for too long."""
    text = b""
    while select.select([handle], [], [], _PATIENCE)[0] and (data := os.read(handle, 1 << 16)):
        *lines, text = (text + data).split(b"\n")
        yield from (line.decode() for line in lines)


def _child(folder: Path) -> None:
    for container, sound in json.load(sys.stdin):
        _say(container, sound, "an output", "")
        source = _make(folder, container, sound)
        for output, verdict in _verdicts(source, folder, _codecs(container, sound)).items():
            _say(container, sound, output, verdict)


def _say(*parts: str) -> None:
    print(json.dumps(parts), flush=True)


def _codecs(container: str, sound: str) -> Sequence[str]:
    return _TWO.get(container, ("aac", "ac3")) if sound == "two tracks" else SOUNDS[sound][0]


def _make(folder: Path, container: str, sound: str) -> Path | None:
    codecs = _codecs(container, sound)
    try:
        return make_media(folder / f"in.{container}", audio=codecs, layout=SOUNDS[sound][1], frames=FRAMES)
    except (ValueError, OSError, av.FFmpegError):
        return None


def _verdicts(source: Path | None, folder: Path, tracks: Sequence[str]) -> dict[str, str]:
    if source is None:
        return dict.fromkeys(OUTPUTS, "no input")
    try:
        return _copy(source, folder, tracks)
    except Exception as error:
        return dict.fromkeys(OUTPUTS, f"{type(error).__name__}: {error}")


def _copy(source: Path, folder: Path, tracks: Sequence[str]) -> dict[str, str]:
    """Write the source's frames, unsegmented, into all outputs at once, and see what came out."""
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(str(source)))
        sinks = {
            output: stack.enter_context(VideoSink(folder / f"out.{output}", OutputSpec(frames.info, ())))
            for output in OUTPUTS
        }
        for frame in frames:
            for sink in sinks.values():
                sink.write(frame, None)
    sound, seconds = payload(source), heard_seconds(source)
    # A container may take packets in which no reader finds sound.
    there = all(sound) and len(sound) == len(tracks)
    return {
        output: _verdict(folder / f"out.{output}", sink.notes, sound, seconds, there) for output, sink in sinks.items()
    }


def _verdict(target: Path, notes: Sequence[str], sound: list[int], seconds: list[float], there: bool) -> str:
    written = sum(count for _, count in streams_of(target, "video"))
    if written != FRAMES:
        return f"{written} of {FRAMES} frames"
    if not there:
        return "no input"
    copied = payload(target)
    heard = zip(seconds, heard_seconds(target), strict=False)
    if copied == sound and all(abs(a - b) < 0.03 for a, b in heard):
        return "kept"
    return "noted" if any("audio" in note for note in notes) else f"lost: {sound} became {copied}"


def table(results: Sequence[Result]) -> str:
    """The results as a table in Markdown: the outputs that keep the sound, by sound and container."""
    found = {(r.container, r.sound, r.output): r.verdict for r in results}
    lines = [f"| sound | {' | '.join(CONTAINERS)} |", f"|---|{'---|' * len(CONTAINERS)}"]
    for sound in SOUNDS:
        cells = [_cell([found.get((c, sound, o), "?") for o in OUTPUTS]) for c in CONTAINERS]
        lines.append(f"| {sound} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(verdicts: Sequence[str]) -> str:
    if set(verdicts) == {"no input"}:
        return "–"
    kept = [output for output, verdict in zip(OUTPUTS, verdicts, strict=True) if verdict == "kept"]
    return "all" if len(kept) == len(OUTPUTS) else " ".join(kept) or "left out"


def committed_table() -> str:
    """The table as it stands in the README."""
    return README.read_text().split(_BEGIN)[1].split(_END)[0].strip()


def _rewrite(text: str) -> None:
    before, rest = README.read_text().split(_BEGIN)
    README.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{rest.split(_END)[1]}")


def main() -> None:
    """Run the matrix, name what is wrong, and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        results = run_matrix(cases(), Path(folder))
    for result in results:
        if not result.is_right:
            print(result)
    _rewrite(table(results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(Path(sys.argv[2]))
    else:
        main()
