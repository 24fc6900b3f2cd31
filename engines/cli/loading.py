"""What a console script does before and after its libraries: a check of memory, Ctrl-C without a traceback, and its end.

Importing this module does it, so it is the first import of every package. In any other program it changes nothing.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# With less than this libav, OpenCV and OpenVINO can't be loaded and run.
LEAST = 1 << 30


def _console_script() -> str:
    """Return the name of this process's console script; "" in any other program, and in a worker of multiprocessing."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    return name if name.startswith("cliprl-") and "--multiprocessing-fork" not in sys.orig_argv else ""


_SCRIPT = _console_script()
# The exit status, once it is certain.
_statuses: list[int] = []
_SAFE_PATH = "PYTHONSAFEPATH"


def collect_garbage() -> None:
    """Collect garbage from here on, which a console script does not while it imports: what is there now stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def exit_on_signals(status: int, numbers: tuple[signal.Signals, ...], message: str = "") -> None:
    """Let a signal end a console script at once with `status`, from here on: nothing is open that would be lost.

    An exception would end up in the middle of a library that is being loaded, or of the interpreter's end. Signals that were
    ignored before stay ignored.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        if message:
            os.write(2, f"{_SCRIPT}: {message}\n".encode())
        os._exit(status)

    for number in numbers if _SCRIPT else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


def end_with(status: int, numbers: tuple[signal.Signals, ...]) -> None:
    """Let a console script end with `status`, from here on: by one of these signals at once, else after its exit functions.

    The interpreter's own end is left out. In it a thread that was left in a read of libav, which calls Python every tenth of a
    second, would end the process by SIGSEGV.
    """
    exit_on_signals(status, numbers)
    _statuses.append(status)


@contextmanager
def current_folder_hidden() -> Iterator[None]:
    """Let the processes that libraries start find no modules in the current folder, as this one does not."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        os.environ.pop(_SAFE_PATH)
        if before is not None:
            os.environ[_SAFE_PATH] = before


def _leave() -> None:
    """Run last of all exit functions, because it was registered first."""
    if _statuses:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(_statuses[-1])


def _check_address_space() -> None:
    """End a console script in one line, or raise MemoryError in any other program, where a limit (`ulimit -v`) is too low."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or limit >= LEAST:
        return
    text = (
        f"too little memory: the process is limited to {limit >> 20} MiB of address space (ulimit -v), and needs at least "
        f"{LEAST >> 20} MiB: raise the limit"
    )
    if _SCRIPT:
        print(f"{_SCRIPT}: {text}", file=sys.stderr)
        raise SystemExit(1)
    raise MemoryError(text)


if _SCRIPT:
    atexit.register(_leave)
    gc.disable()
    # Pydantic would look through all installed packages for plugins, and let them see what it checks.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
exit_on_signals(130, (signal.SIGINT,), "interrupted")
_check_address_space()
