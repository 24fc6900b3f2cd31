"""A file is replaced whole, or its former content stays."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cliprl.engines import atomic_write as module
from cliprl.engines.atomic_write import atomic_write, replace_folder


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


def _folder(path: Path) -> Path:
    path.mkdir()
    (path / "name").write_text(path.name)
    return path


def test_a_replaced_folder_is_there_at_every_moment(tmp_path: Path) -> None:
    place, ended, gaps = _folder(tmp_path / "place"), threading.Event(), list[str]()

    def watch() -> None:
        while not ended.is_set():
            try:
                (place / "name").read_text()
            except FileNotFoundError as error:
                gaps.append(str(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(200):
        replace_folder(_folder(tmp_path / f"made-{number}"), place)
    ended.set()
    watcher.join()
    assert not gaps
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (place / "name").read_text() == "made-199"


def test_a_signal_between_two_names_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, made = _folder(tmp_path / "place"), _folder(tmp_path / "made")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path == made:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(module, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(made, place)
    assert (place / "name").read_text() == "place"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "place"]
