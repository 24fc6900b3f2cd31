"""Load the compiled engines of a bundle on a thread, while the program imports and opens what else it needs."""

from __future__ import annotations

import atexit
import threading
from concurrent.futures import Future

from cliprl.engines.backends.engine import AUTO, LogFunction
from cliprl.engines.bundle.bundle import Bundle, open_bundle
from cliprl.engines.cache.engine_cache import NotCachedError, ReadOnlyCache
from cliprl.engines.errors import CliprlError
from cliprl.engines.selection.engine_variant import CompiledBundle
from cliprl.engines.selection.load_engines import load_engines

# Seconds that the end of the program waits for the thread. An interrupt in the middle of an import can leave Python's import
# lock taken, and the thread waiting for it for ever.
_LONGEST_WAIT = 5.0


class EarlyLoad:
    """A bundle that is opened, and its engines for the CPU that are loaded, on a thread from now on.

    Nothing is compiled: that is for `load_engines`, after everything else that may fail.
    """

    def __init__(self, name: str, *, precision: str = AUTO, threads: int = 0) -> None:
        self._messages: list[str] = []
        self._bundle, self._engines = Future[Bundle](), Future[CompiledBundle | None]()
        thread = threading.Thread(target=self._run, args=(name, precision, threads), name="early load", daemon=True)
        thread.start()
        atexit.register(thread.join, _LONGEST_WAIT)

    def _run(self, name: str, precision: str, threads: int) -> None:
        try:
            self._bundle.set_result(open_bundle(name))
        except BaseException as error:
            self._bundle.set_exception(error)
        try:
            self._engines.set_result(self._load(precision, threads))
        except BaseException as error:
            self._engines.set_exception(error)

    def bundle(self) -> Bundle:
        """Return the bundle. Raises what `open_bundle` raises."""
        return self._bundle.result()

    def engines(self, log: LogFunction) -> CompiledBundle | None:
        """Return the engines; None if they have to be compiled, or can't be had. `log` gets the messages about them."""
        found = self._engines.result()
        for message in self._messages if found else ():
            log(message)
        return found

    def _load(self, precision: str, threads: int) -> CompiledBundle | None:
        # An error is left to `load_engines`, which meets it again where it can be reported in its place.
        try:
            bundle, cache = self._bundle.result(), ReadOnlyCache()
            return load_engines(bundle, precision=precision, threads=threads, cache=cache, log=self._messages.append)
        except (NotCachedError, CliprlError):
            return None
