"""TensorRT's error messages. Its messages below an error are dropped in C++; thousands come in one build."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

from cliprl.engines.errors import EngineError, line_of

# Errors kept.
_KEPT = 10


def make_logger(trt: Any) -> Any:
    """Create TensorRT's own logger, which filters before it calls anything. A `make_recorder` receives the errors."""
    return trt.Logger(trt.Logger.INTERNAL_ERROR)


def make_recorder(trt: Any) -> Any:
    """Create an error recorder for a Builder or Runtime, which TensorRT hands on to all that they create.

    A Builder gets it after `create_network`: a network that has a recorder crashes TensorRT for RTX 1.7 when it is freed.
    """

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.errors: list[tuple[Any, str]] = []

        def report_error(self, code: Any, text: str) -> bool:
            self.errors[:] = [*self.errors[1 - _KEPT :], (code, " ".join(text.split()))]
            return True

        def num_errors(self) -> int:
            return len(self.errors)

        def get_error_code(self, index: int) -> Any:
            return self.errors[index][0]

        def get_error_desc(self, index: int) -> str:
            return self.errors[index][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self.errors.clear()

        def last(self, default: str = "it gives no reason") -> str:
            return self.errors[-1][1] if self.errors else default

    recorder = Recorder()
    # TensorRT's objects refer to it until the last is freed, and do not keep it alive: it is never freed.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(recorder))
    return recorder


def create(trt: Any, kind: Any, logger: Any, complaint: str) -> Any:
    """Create a Builder or Runtime.

    Raises EngineError with `complaint` where TensorRT fails, which its bindings report as TypeError.
    """
    try:
        made = kind(logger)
    except (TypeError, RuntimeError) as error:
        reason = _reason(trt, kind) or line_of(error)
        raise EngineError(f"{complaint}: {reason}") from error
    if made is None:
        raise EngineError(f"{complaint}: {_reason(trt, kind) or 'it gives no reason'}")
    return made


def _reason(trt: Any, kind: Any) -> str:
    """Try once more with a logger in Python: what fails before there is a recorder is logged only."""
    errors: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(" ".join(message.split()))

    with suppress(TypeError, RuntimeError):
        kind(Logger())
    return errors[-1] if errors else ""
