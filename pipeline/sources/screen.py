"""An X11 screen as a source."""

from __future__ import annotations

import os

from cliprl.engines import UsageError
from cliprl.pipeline.sources.decoding.low_latency import QUICK, TIMEOUT
from cliprl.pipeline.sources.registry import SourceOptions, register_source
from cliprl.pipeline.sources.v4l2_devices import device_options
from cliprl.pipeline.sources.video import VideoSource

SCREEN = "screen:"


@register_source(prefixes=(SCREEN,), help="an X11 screen", live=True)
def open_screen(name: str, options: SourceOptions) -> VideoSource:
    """Capture an X11 screen.

    "screen:" is the screen of $DISPLAY, "screen::1.0" another; "?size=1280x720&rate=25" selects the upper left part and a rate.
    Raises UsageError if there is no display, CliprlError if it can't be captured.
    """
    screen, settings = device_options(name)
    display = screen.removeprefix(SCREEN) or os.environ.get("DISPLAY", "")
    if not display:
        raise UsageError(f"{name}: there is no X11 display: set DISPLAY, or write screen::0.0")
    if "input_format" in settings:
        raise UsageError(f"{name}: a screen takes no format: leave it out")
    return VideoSource(display, format="x11grab", options=QUICK | settings, timeout=TIMEOUT, live=True)
