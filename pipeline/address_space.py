"""A check before libraries are loaded that crash the process where it may use too little address space."""

from __future__ import annotations

import sys
from pathlib import Path

# With less than this libav, OpenCV and OpenVINO can't be loaded and run.
LEAST = 1 << 30


def check_address_space() -> None:
    """End a command in one line, or raise MemoryError in any other program, where a limit (`ulimit -v`) is too low."""
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
    program = Path(sys.argv[0]).name
    if program.startswith("cliprl-"):
        print(f"{program}: {text}", file=sys.stderr)
        raise SystemExit(1)
    raise MemoryError(text)
