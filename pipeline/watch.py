"""`cliprl-stream --web`: the live path, with somebody who watches and may change what is shown."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprl.engines import Bundle, UsageError
from cliprl.pipeline.live.camera import Camera
from cliprl.pipeline.live.equip import Equip
from cliprl.pipeline.live.outlet import Outlet
from cliprl.pipeline.live.recording import RecordOptions, recordings
from cliprl.pipeline.live.stream import LiveStream, Promise
from cliprl.pipeline.live.supervisor import Supervisor
from cliprl.pipeline.overlay import Overlay
from cliprl.pipeline.protocols import Scene
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import FrameSource, open_source
from cliprl.pipeline.sources.errors import redact

if TYPE_CHECKING:
    from cliprl.pipeline.command import Options

_NEEDED = ("aiohttp", "aiortc")
# A frame of a file waits for its own mask, for this share of the time until the next is due.
_FILE_WAIT = 0.8
# Where the viewer's record button writes.
RECORDINGS = Path("recordings")


def watchable(name: str) -> str:
    """The input as it is watched: the demo without an end, where no end was asked for."""
    return "demo:?seconds=0" if name == "demo:" else name


def open_live(options: Options, source: FrameSource, bundle: Bundle, overlay: Overlay) -> LiveStream:
    """The live stream of a source that is open, with the outputs that were asked for."""
    name = watchable(options.source)
    camera = Camera(lambda: open_source(name), source, name=redact(name))
    equip = Equip(bundle, options.device, options.steps, options.budget_ms, options.precision, options.threads)
    scene = Scene(source.info, bundle.manifest.classes)
    outlets = [Outlet(_opener(target, scene, options)) for target in options.outputs]
    promise = Promise(wait_ms=0.0 if source.info.live else _FILE_WAIT * 1000 * camera.period)
    supervisor = Supervisor(equip, len(bundle.manifest.classes))
    recorded = recordings(RecordOptions(RECORDINGS, crf=options.crf, preset=options.preset), lambda: camera.info)
    name = bundle.manifest.name
    return LiveStream(camera, overlay, supervisor, outlets, recordings=recorded, promise=promise, name=name)


def _opener(target: str, scene: Scene, options: Options) -> Callable[[], Any]:
    open_sink(
        target, scene, crf=options.crf, preset=options.preset
    ).close()  # tells of a bad name before the stream starts
    return lambda: open_sink(target, scene, crf=options.crf, preset=options.preset)


@contextmanager
def web_viewer(address: str, stream: LiveStream, network: str) -> Iterator[None]:
    """Serve the page while the stream runs. When its input ends by itself the last picture stays to be seen until Ctrl-C.

    Says where the page is on standard error: beyond loopback that holds the token, and is the only place that does.
    Raises UsageError where the viewer's packages are missing or it can't listen on `address`.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"the web viewer needs {' and '.join(missing)}: pip install 'cliprl[live]'")
    from cliprl.pipeline.web.address import Address
    from cliprl.pipeline.web.state import Program
    from cliprl.pipeline.web.viewer import WebViewer

    info = stream.camera.info
    assert info is not None  # its source is open
    records = bool(stream.recordings)
    program = Program(stream.hub, stream.controls, info, stream.overlay.classes, records, network)
    with WebViewer(program, Address.parse(address)) as viewer:
        _say(f"watch at {viewer.url}")
        yield
        with suppress(OSError):
            RECORDINGS.rmdir()  # nothing was recorded
        if not stream.summary().interrupted:
            _say("the input has ended; the page stays until Ctrl-C")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


def _say(text: str) -> None:
    print(f"cliprl-stream: {text}", file=sys.stderr, flush=True)
