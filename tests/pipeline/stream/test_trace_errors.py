"""A trace that can't be written: the video is finished, and the errors of both are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliprl.engines import CliprlError
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import open_source
from cliprl.pipeline.stream.stream import Stream
from cliprl.pipeline.stream.trace import Trace

DEMO = "demo:?seconds=4&size=64x64"


def trace_on_a_full_disk(folder: Path, video: str) -> str:
    """Run a stream with a trace to /dev/full, and return the error."""
    (folder / "t.json").symlink_to("/dev/full")
    source = open_source(DEMO)
    sink = open_sink(folder / video, OutputSpec(source.info, ()))
    with pytest.raises(CliprlError) as caught, sink, Trace(folder / "t.json") as trace:
        Stream(source, None, None, [sink]).run(trace)
    return str(caught.value)


def test_a_trace_without_space_does_not_end_the_run(tmp_path: Path) -> None:
    assert "trace" in trace_on_a_full_disk(tmp_path, "o.mkv")
    assert (tmp_path / "o.mkv").exists()


def test_error_of_the_video_precedes_that_of_the_trace(tmp_path: Path) -> None:
    (tmp_path / "o.mkv").symlink_to("/dev/full")
    error = trace_on_a_full_disk(tmp_path, "o.mkv")
    assert 0 <= error.find("o.mkv") < error.find("writing the trace"), error
