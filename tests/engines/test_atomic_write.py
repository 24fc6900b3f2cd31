"""A file is replaced whole, or its former content stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliprl.engines.atomic_write import atomic_write


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_former_file_alone(
    tmp_path: Path, shared: bool, error: type[BaseException]
) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path, shared=shared, durable=True) as file:
        file.write(b"former")
    with pytest.raises(error):
        _write_half(path, shared, error)
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == {"a.bin": b"former"}


def _write_half(path: Path, shared: bool, error: type[BaseException]) -> None:
    with atomic_write(path, shared=shared) as file:
        file.write(b"half")
        raise error
