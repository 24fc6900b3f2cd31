"""Settings of the whole process that streams change while they run."""

from __future__ import annotations

import sys

from live_camera import TestCamera
from live_faults import CLASSES

from cliprl.pipeline import Overlay
from cliprl.pipeline.core.thread_policy import prompt_switches
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.stream import LiveStream


def test_switches_are_prompt_until_the_last_stream_ends() -> None:
    before = sys.getswitchinterval()
    with prompt_switches():
        first = sys.getswitchinterval()
        with prompt_switches():
            pass
        assert sys.getswitchinterval() == first < before
    assert sys.getswitchinterval() == before


def test_a_live_stream_switches_threads_promptly() -> None:
    before, within = sys.getswitchinterval(), list[float]()
    camera = TestCamera(live=False)
    capture = LiveCapture(lambda: camera, camera, name="camera", reconnect=False)
    stream = LiveStream(capture, Overlay(CLASSES))
    stream.run(lambda *_: within.append(sys.getswitchinterval()), frames=3)
    assert len(within) == 3
    assert max(within) < before
    assert sys.getswitchinterval() == before
