"""The code that one frame runs through, from file to file on the CPU, stays small enough to be read."""

from __future__ import annotations

import ast
import io
import sys
import threading
import tokenize
from pathlib import Path
from types import CodeType, FrameType

from cliprl import pipeline
from cliprl.pipeline import OutputSpec, Overlay, Segmenter, Stream, open_sink, open_source

# Of the installed package.
ROOT = Path(pipeline.__file__).resolve().parents[1]
MOST_FILES, MOST_LINES = 24, 3000
# Numbers of frames before the first trace, which fill the caches, and of traces. Rare work, such as writing a fragment once a
# second or drawing a new legend, shows in the minority of the traces.
WARM_UP, TRACES = 20, 5
# A trace holds a whole frame when each of these files was reached.
STAGES = {
    "engines/backends/openvino/engine.py",
    "pipeline/overlay/overlay.py",
    "pipeline/segment/segmenter.py",
    "pipeline/sinks/video/encoder.py",
    "pipeline/sources/video.py",
    "pipeline/stream/stream.py",
}


class Tracer:
    """Collects the code of all Python functions that are called on any thread while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.called: set[CodeType] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if self.on and event == "call":
            self.called.add(frame.f_code)

    def files(self) -> set[str]:
        """Files of the project among them, relative to its root."""
        paths = {
            Path(code.co_filename).resolve() for code in self.called.copy() if not code.co_filename.startswith("<")
        }
        project = (path.relative_to(ROOT) for path in paths if ROOT in path.parents)
        return {path.as_posix() for path in project if path.parts[0] != "tests"}


def lines_of_code(path: Path) -> int:
    """Lines without blank lines, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = (token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in skipped)
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            assert node.end_lineno is not None
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_a_frame_passes_few_files(tmp_path: Path) -> None:
    clip, output, tracer, traces = tmp_path / "in.mp4", tmp_path / "out.mp4", Tracer(), list[set[str]]()
    with (
        # Without a small region, which two more modules would look at again.
        open_source("demo:?seconds=3&size=320x256&rate=25&seed=5") as demo,
        open_sink(clip, OutputSpec(demo.info, ())) as sink,
    ):
        for frame in demo:
            sink.write(frame, None)
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        source, segmenter = open_source(clip), Segmenter("small")
        sink = open_sink(output, OutputSpec(source.info, segmenter.classes))
        overlay = Overlay(segmenter.classes)
        with Stream(source, segmenter, overlay, [sink], status=lambda *_: "status") as stream:
            for number, _ in enumerate(stream):
                if tracer.files() >= STAGES:
                    traces.append(tracer.files())
                    tracer.called.clear()
                tracer.on = number >= WARM_UP and len(traces) < TRACES
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    assert len(traces) == TRACES
    usual = {name for name in set.union(*traces) if sum(name in trace for trace in traces) > TRACES / 2}
    found = {name: lines_of_code(ROOT / name) for name in sorted(usual)}
    assert len(found) <= MOST_FILES, found
    assert sum(found.values()) <= MOST_LINES, found
