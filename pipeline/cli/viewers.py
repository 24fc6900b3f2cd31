"""The viewers of `cliprl-stream`: the page of `--web` and the window of `--window`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cliprl.engines import UsageError
from cliprl.engines.cli.signals import interruptible

if TYPE_CHECKING:
    from cliprl.pipeline.correction.service import CorrectionService
    from cliprl.pipeline.live.stream import LiveStream

_NEEDED = ("aiohttp", "aiortc", "prometheus_client")
# Where the viewer's record button writes.
RECORDINGS_FOLDER = Path("recordings")


def watchable(name: str) -> str:
    """Return the input to display: the demo without an end, unless it was given one."""
    return "demo:?seconds=0" if name == "demo:" else name


@contextmanager
def web_viewer(
    address: str,
    stream: LiveStream,
    network: str,
    corrections: CorrectionService | None = None,
    *,
    proxy_url: str = "",
) -> Iterator[None]:
    """Serve the page while the stream runs. After the end of the input the last frame stays until Ctrl-C.

    Prints the address of the page on standard error; beyond loopback, and behind a reverse proxy at `proxy_url`, with the token,
    which is printed nowhere else.
    Raises UsageError if the viewer's packages are missing or it can't listen on `address`.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"the web viewer needs {' and '.join(missing)}: pip install 'cliprl[live]'")
    from cliprl.pipeline.web.address import Address
    from cliprl.pipeline.web.server import WebViewer
    from cliprl.pipeline.web.status_json import ProgramInfo

    records = bool(stream.recordings)
    playback = stream.playback
    program = ProgramInfo(
        stream.broadcast,
        stream.controls,
        stream.info,
        stream.overlay.classes,
        records,
        network,
        playback,
        corrections,
        stream.follow,
    )
    with WebViewer(program, Address.parse(address), proxy_url=proxy_url) as viewer:
        _say(f"watch at {viewer.url}")
        for place in viewer.external_urls:
            _say(f"from other machines: {place}")
        if playback is not None:
            playback.on_end = _once(lambda: _say("the input has ended: replay it there; the page stays until Ctrl-C"))
            if playback.is_waiting:
                _say("playing begins with the first viewer; Ctrl-C ends")
        yield
        if not stream.stopped and not (playback is not None and playback.repeats):
            with suppress(KeyboardInterrupt, SystemExit), interruptible():
                _say("the input has ended; the page stays until Ctrl-C")
                stream.linger(threading.Event())


@contextmanager
def window(stream: LiveStream, title: str, corrections: CorrectionService | None = None) -> Iterator[None]:
    """Show a window while the stream runs; the last frame of an input that ends by itself stays until it is closed.

    Raises UsageError if the window's packages are missing, CliprlError if there is no screen.
    """
    if find_spec("sdl2") is None:
        raise UsageError("the window needs pysdl2 and pysdl2-dll: pip install 'cliprl[window]'")
    from cliprl.pipeline.window.window import Window

    records, live = bool(stream.recordings), stream.info.live
    shown = Window(
        stream.broadcast,
        stream.controls,
        title=title,
        live=live,
        records=records,
        close=stream.stop,
        corrections=corrections,
        follow=stream.follow,
    )
    shown.start()
    shown.opened.wait()
    if shown.failed:
        raise shown.failed
    try:
        yield
        if not stream.stopped:
            with suppress(KeyboardInterrupt, SystemExit), interruptible():
                stream.linger(shown.left)
    finally:
        shown.stop()


@contextmanager
def tidy_recordings() -> Iterator[None]:
    """Remove the folder that was made for recordings, if nothing was recorded."""
    try:
        yield
    finally:
        with suppress(OSError):
            RECORDINGS_FOLDER.rmdir()


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """`call`, which is called only the first time."""
    calls = iter([call])
    return lambda: next(calls, lambda: None)()


def _say(text: str) -> None:
    print(f"cliprl-stream: {text}", file=sys.stderr, flush=True)
