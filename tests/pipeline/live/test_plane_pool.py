"""The pool of planes that readers share: planes that one of them holds are never handed out."""

from __future__ import annotations

import subprocess
import sys

import pytest

POOL = """
import sys

count = sys.getrefcount
sys.getrefcount = lambda value: count(value) - {less}
from cliprl.pipeline.live.plane_pool import PlanePool

pool = PlanePool()
held = pool(8, 8)
for part in range(2):
    kept = held[part]
    address, held = held[part].ctypes.data, None
    other = pool(8, 8)
    assert other[part].ctypes.data != address, "a reader holds it"
    del kept
    again = pool(8, 8)
    assert again[part].ctypes.data == address, "nothing holds it"
    assert pool(8, 8)[part].ctypes.data not in (address, other[part].ctypes.data), "tuples hold them"
    held, other, again = again, None, None
"""


@pytest.mark.parametrize("less", [0, 1, 2])
def test_held_planes_are_safe_however_python_counts(less: int) -> None:
    """Python 3.14 counts one reference less than 3.11: what lies on the stack."""
    subprocess.run([sys.executable, "-c", POOL.format(less=less)], check=True)
