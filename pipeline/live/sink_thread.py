"""A sink behind a queue and a thread of its own: however slow it is or fails, the display path does not notice."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import Sink
from cliprl.pipeline.core.segmentation import Segmentation

# Pictures that may wait for a file, which is to miss none, and for a network, which is to be up to date.
FILE_QUEUE, NETWORK_QUEUE = 48, 3
# Seconds before a network sink is opened again; doubled each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
# How long the end waits for a sink to finish.
_PATIENCE = 20.0

_Item = tuple[Frame, Segmentation | None]


class SinkThread(threading.Thread):
    """Feeds one sink. `open_sink` opens it, on this thread, once the first picture is there.

    A file's outlet keeps everything it is given, up to `FILE_QUEUE` pictures behind; what does not fit is counted in `dropped`.
    After an error it takes no more, and `error` tells of it; `dropped` counts on. A `network` outlet drops what is old, and
    opens its sink again. `written` counts what the sink took. `name` is the output's, for notes.
    """

    def __init__(self, open_sink: Callable[[], Sink], *, name: str = "an output", network: bool = False) -> None:
        super().__init__(name="outlet", daemon=True)
        self.target = name
        self.dropped = self.written = 0
        self.error: CliprlError | None = None
        self.notes: list[str] = []
        self._open, self._network = open_sink, network
        self._changed = threading.Condition()
        self._items: deque[_Item] = deque()
        self._closed = False

    @property
    def forgiving(self) -> bool:
        """Whether an error does not count as the run's: a network's other end may come and go."""
        return self._network

    @property
    def remark(self) -> str:
        """What the user has to know of it, without numbers, which change; empty while all is well."""
        if self.error is not None:
            return str(self.error)
        return f"frames are missing in '{self.target}'" if self.dropped and not self._network else ""

    def put(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Hand over a picture that will not be written any more. Never waits."""
        with self._changed:
            if self.error and not self._network:
                self.dropped += 1
                return
            if len(self._items) >= (NETWORK_QUEUE if self._network else FILE_QUEUE):
                self.dropped += 1
                if not self._network:
                    return
                self._items.popleft()
            self._items.append((frame, segmentation))
            self._changed.notify_all()

    def close(self) -> None:
        """Write what still waits, finish the sink, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self.is_alive():
            self.join(_PATIENCE)
        missing = (
            f"{self.dropped} frames are missing in '{self.target}': the disk or the encoder is too slow, or has failed"
        )
        if self.dropped and not self._network and missing not in self.notes:
            self.notes.append(missing)

    def run(self) -> None:
        """The thread's body."""
        pause = _FIRST_PAUSE
        while self._wait():
            started = time.monotonic()
            try:
                self._feed()
            except CliprlError as error:
                self._failed(error)
            except Exception as error:
                self._failed(CliprlError(f"{type(error).__name__}: {error}"))
            if not self._network or self._closed:
                return
            pause = _FIRST_PAUSE if time.monotonic() - started > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)
                self._items.clear()

    def _feed(self) -> None:
        with self._open() as sink:
            while (item := self._take()) is not None:
                try:
                    sink.write(*item)
                except Exception:
                    self.dropped += not self._network
                    raise
                self.error = None
                self.written += 1
                del item  # whoever waits for the next picture must not hold this one
        self.notes += [note for note in getattr(sink, "notes", ()) if note not in self.notes]

    def _failed(self, error: CliprlError) -> None:
        with self._changed:
            self.error = error
            self.dropped += 0 if self._network else len(self._items)
            self._items.clear()
        self.notes += [str(error)] if str(error) not in self.notes else []

    def _wait(self) -> bool:
        """Whether there is, at last, something to write."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            return bool(self._items)

    def _take(self) -> _Item | None:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            return self._items.popleft() if self._items else None
