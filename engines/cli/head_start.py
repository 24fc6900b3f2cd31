"""Load the engines of a run of `cliprl-stream` on another thread while the program imports the rest of itself.

Most of the time of a start is Python's, which has one thread at a time; networks are loaded outside it, on another processor.
What the command line will say is guessed from its words; where the guess is wrong, or no console script runs, nothing changes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import pairwise

import numpy as np

from cliprl.engines.backends.engine import LogFunction
from cliprl.engines.bundle.bundle import IMAGE, Bundle, open_bundle
from cliprl.engines.cli.loading import CONSOLE_SCRIPT
from cliprl.engines.selection.engine_variant import CompiledBundle
from cliprl.engines.selection.load_engines import load_engines

PROGRAM, DEFAULT_BUNDLE = "cliprl-stream", "small"
_BUNDLE_OPTION = "--bundle"
# With these options other engines serve, or another process has them, or none is needed.
_OTHER_ENGINES = "--device", "--precision", "--threads", "--input-size", "--prompt", "--exemplar"
_OTHER_PROCESS = "--web", "--window", "--record"
_NONE = "--help", "--help-all", "--version", "--schema", "--list-devices"
_EXCLUDED = {*_OTHER_ENGINES, *_OTHER_PROCESS, *_NONE}


def guessed_bundle(words: Sequence[str]) -> str | None:
    """Return the bundle that a command line names, if it is one of a file that the usual engines segment; else None."""
    options = {word.partition("=")[0] for word in words}
    if options & _EXCLUDED or not any(os.path.isfile(word) for word in words):
        return None
    following = dict(pairwise(words))
    joined = {key: value for key, _, value in (word.partition("=") for word in words)}
    return following.get(_BUNDLE_OPTION) or joined.get(_BUNDLE_OPTION) or DEFAULT_BUNDLE


class HeadStart:
    """The bundle called `name` and its engines, opened and run once on a thread; errors are raised where these are asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._bundle: Future[Bundle] = Future()
        self._engines: Future[CompiledBundle] = Future()
        self._log: LogFunction | None = None
        self._messages: list[str] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._load, name="head start", daemon=True).start()

    def bundle(self) -> Bundle:
        """The bundle, when it is opened."""
        return self._bundle.result()

    def engines(self, log: LogFunction) -> CompiledBundle:
        """The engines, when they are loaded; `log` gets the messages about that, earlier ones too."""
        with self._lock:
            for message in self._messages:
                log(message)
            self._log = log
        return self._engines.result()

    def _load(self) -> None:
        try:
            bundle = open_bundle(self.name)
        except BaseException as error:
            self._bundle.set_exception(error)
            return
        self._bundle.set_result(bundle)
        try:
            engines = load_engines(bundle, log=self._tell)
            size = bundle.manifest.height, bundle.manifest.width
            engines.encoder.run({IMAGE: np.zeros((1, *size, 3), np.uint8), "text": bundle.embeddings})
        except BaseException as error:
            self._engines.set_exception(error)
            return
        self._engines.set_result(engines)

    def _tell(self, message: str) -> None:
        with self._lock:
            if self._log is None:
                self._messages.append(message)
            else:
                self._log(message)


_begun: list[HeadStart] = []


def has_begun() -> bool:
    """Whether engines are loaded ahead: a file will be segmented, unless the command line is misused."""
    return bool(_begun)


def opened_ahead(name: str) -> Bundle:
    """Open a bundle, or return the one that was opened ahead."""
    return _begun[0].bundle() if _begun and _begun[0].name == name else open_bundle(name)


def loaded_ahead(bundle: Bundle, log: LogFunction) -> CompiledBundle | None:
    """Return the engines that were loaded ahead for this very bundle, once: a stream's engines are its own; else None."""
    if not _begun or _begun[0].bundle() is not bundle:
        return None
    return _begun.pop().engines(log)


if CONSOLE_SCRIPT == PROGRAM and (_named := guessed_bundle(sys.argv[1:])):
    with suppress(RuntimeError):  # no more threads here
        _begun.append(HeadStart(_named))
