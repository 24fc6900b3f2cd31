"""Compiled engines are kept, named, shared and thrown away; nothing that is not whole is ever trusted."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import Forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import file_size_limit

from cliprl.engines import EngineError
from cliprl.engines.bundle.manifest import sealed_text
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cache.engine_cache import EngineCache, NotCachedError, ReadOnlyCache, entry_name
from cliprl.engines.selection import load_engines

FIELDS = {"bundle": "small", "backend": "openvino", "precision": "bf16", "openvino": "2026.4", "threads": "0"}
MADE = StoredEntry({"one": bytes(range(256)) * 20, "two": b"refiner"}, {"seconds": 0.5, "faults": []})


class Builder:
    """Counts how often it had to build."""

    def __init__(self, made: StoredEntry = MADE) -> None:
        self.made, self.runs = made, 0

    def __call__(self) -> StoredEntry:
        self.runs += 1
        return self.made


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def stored(cache: EngineCache, fields: Mapping[str, str] = FIELDS) -> tuple[Path, Path]:
    cache.get_or_make(fields, Builder())
    name = entry_name(fields)
    return cache.folder / f"{name}.engine", cache.folder / f"{name}.json"


def test_what_was_made_is_not_made_again(cache: EngineCache) -> None:
    build, said = Builder(), list[str]()
    for _ in range(3):
        found = cache.get_or_make(FIELDS, build, said.append)
        assert (dict(found.parts), dict(found.report)) == (dict(MADE.parts), dict(MADE.report))
    assert build.runs == 1
    assert said == []
    assert not list(cache.folder.glob("*.partial"))


def test_a_read_only_cache_makes_and_drops_no_entry(cache: EngineCache) -> None:
    build, reader = Builder(), ReadOnlyCache(cache.folder)
    with pytest.raises(NotCachedError, match="small-openvino"):
        reader.get_or_make(FIELDS, build)
    assert not cache.folder.exists()
    stored(cache)
    with pytest.raises(NotCachedError, match="small-openvino"):
        reader.forget(FIELDS)
    assert dict(reader.get_or_make(FIELDS, build).parts) == dict(MADE.parts)
    assert build.runs == 0


def test_a_verdict_of_refusal_is_kept_too(cache: EngineCache) -> None:
    build = Builder(StoredEntry({}, {"faults": ["too far off"]}))
    for _ in range(2):
        assert cache.get_or_make(FIELDS, build).report["faults"] == ["too far off"]
    assert build.runs == 1


@pytest.mark.parametrize("field", ["openvino", "threads"])
def test_the_field_that_differs_is_named(cache: EngineCache, field: str) -> None:
    stored(cache)
    build, said = Builder(), list[str]()
    cache.get_or_make(FIELDS | {field: "other"}, build, said.append)
    assert build.runs == 1
    assert len(said) == 1
    for word in (field, FIELDS[field], "other", "compiling again"):
        assert word in said[0]
    assert not any(name in said[0] for name in FIELDS if name != field and name != "openvino")


def test_an_entry_under_the_wrong_name_is_not_taken(cache: EngineCache) -> None:
    _, sidecar = stored(cache)
    data = json.loads(sidecar.read_text())
    sidecar.write_text(sealed_text(data | {"fields": FIELDS | {"openvino": "1999"}}))
    build, said = Builder(), list[str]()
    cache.get_or_make(FIELDS, build, said.append)
    assert build.runs == 1
    assert "1999" in said[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(data=st.data(), change=st.integers(1, 255), which=st.sampled_from([0, 1]))
def test_one_flipped_byte_is_noticed_and_mended(
    cache: EngineCache, data: st.DataObject, change: int, which: int
) -> None:
    path = stored(cache)[which]
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
    build, said = Builder(), list[str]()
    assert dict(cache.get_or_make(FIELDS, build, said.append).parts) == dict(MADE.parts)
    assert build.runs == 1
    assert "damaged" in said[0]
    assert path.read_bytes() == whole


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("size", [None, 0, 10])
def test_a_missing_or_cut_file_is_made_again(cache: EngineCache, which: int, size: int | None) -> None:
    path = stored(cache)[which]
    whole = path.read_bytes()
    if size is None:
        path.unlink()
    else:
        path.write_bytes(whole[:size])
    assert dict(cache.get_or_make(FIELDS, Builder()).parts) == dict(MADE.parts)
    assert path.read_bytes() == whole


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=20_000)
    for number in range(3):
        _, sidecar = stored(cache, FIELDS | {"threads": str(number)})
        os.utime(sidecar, (number, number))
    assert cache.read(FIELDS | {"threads": "0"}) is not None
    stored(cache, FIELDS | {"threads": "3"})
    assert sorted(entry.fields["threads"] for entry in cache.entries()) == ["0", "2", "3"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000


def test_an_entry_beyond_the_limit_still_serves(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=10)
    stored(cache)
    stored(cache, FIELDS | {"threads": "1"})
    assert [entry.fields["threads"] for entry in cache.entries()] == ["1"]


def test_clearing_leaves_no_payload(cache: EngineCache) -> None:
    payload, sidecar = stored(cache)
    (cache.folder / ".x.partial").write_bytes(b"1")
    assert cache.clear() == 1
    assert not payload.exists()
    assert not sidecar.exists()
    assert not list(cache.folder.glob("*.partial"))


@pytest.mark.parametrize("beside_entries", [False, True])
def test_clearing_deletes_no_file_of_the_user(beside_entries: bool, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    if beside_entries:
        stored(cache)
    names = ["package.json", "model.engine", "results-2026-11.json", "report-0123456789abcdef.json", "bundle.json"]
    names += [] if beside_entries else [".video.partial", "lap.timing", "kernels.runtime"]
    for name in names:
        (tmp_path / name).write_text(sealed_text({"sha256": ""}) if name == "bundle.json" else "{}")
    assert cache.clear() == beside_entries
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert left == set(names)


def test_a_cache_copied_without_its_locks_is_cleared(tmp_path: Path, cache: EngineCache) -> None:
    payload, sidecar = stored(cache)
    damaged = tmp_path / "small-openvino-f32-0123456789abcdef.json"
    for path in (payload, sidecar):
        shutil.copy(path, tmp_path)
    damaged.write_text("{")
    damaged.with_suffix(".engine").write_text("half")
    assert EngineCache(tmp_path).clear() == 2
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_folder_that_cannot_be_made_costs_only_the_caching(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache, build, said = EngineCache(tmp_path / "file" / "engines"), Builder(), list[str]()
    for _ in range(2):
        assert cache.get_or_make(FIELDS, build, said.append) is MADE
    assert build.runs == 2
    assert "this run alone" in said[0]


def test_a_folder_of_another_user_costs_only_the_caching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    # As below a home that this user may not enter; root may enter all.
    for name in ("stat", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    cache, build, said = EngineCache(tmp_path / "engines"), Builder(), list[str]()
    assert cache.get_or_make(FIELDS, build, said.append) is MADE
    assert "Permission denied" in said[0]
    assert "this run alone" in said[0]
    assert cache.entries() == []


def test_a_read_only_folder_serves_what_it_has(cache: EngineCache) -> None:
    stored(cache)
    os.chmod(cache.folder, 0o555)
    build = Builder()
    try:
        assert dict(cache.get_or_make(FIELDS, build).parts) == dict(MADE.parts)
        assert build.runs == 0
        assert cache.get_or_make(FIELDS | {"threads": "7"}, build) is MADE
    finally:
        os.chmod(cache.folder, 0o755)


@pytest.mark.parametrize(
    ("size", "made"), [(0, MADE), (3000, MADE), (3000, StoredEntry({"one": b"1"}, {"note": "x" * 4000}))]
)
def test_a_full_disk_costs_only_the_caching(cache: EngineCache, size: int, made: StoredEntry) -> None:
    cache.folder.mkdir(parents=True)
    build, said = Builder(made), list[str]()
    with file_size_limit(size):
        assert cache.get_or_make(FIELDS, build, said.append) is made
    assert "this run alone" in said[-1]
    assert not [path for path in cache.folder.iterdir() if path.suffix != ".lock"]
    cache.get_or_make(FIELDS, build)
    assert cache.read(FIELDS) is not None


# The kernel ends the builder, as kill -9 would, when it has used so much CPU time: on a busy machine too it gets to its writes.
STORE = """
import signal, tempfile
from pathlib import Path
from cliprl.engines import EngineCache
from cliprl.engines.cache.cache_store import StoredEntry
parts = {"one": bytes(range(256)) * 4000, "two": b"refiner"}
fields = {"bundle": "small", "backend": "openvino", "precision": "bf16"}
with tempfile.TemporaryDirectory() as folder:  # what is imported late is imported before the children are timed
    EngineCache(Path(folder)).get_or_make(fields, lambda: StoredEntry(parts, {"faults": []}))
def main(words):
    seconds, folder = words.split(maxsplit=1)
    signal.setitimer(signal.ITIMER_PROF, float(seconds))
    cache = EngineCache(Path(folder))
    while True:
        cache.get_or_make(fields, lambda: StoredEntry(parts, {"faults": []}))
        cache.forget(fields)
"""


def test_builder_killed_at_any_moment_leaves_no_invalid_entry(tmp_path: Path) -> None:
    fields = {"bundle": "small", "backend": "openvino", "precision": "bf16"}
    whole = {"one": bytes(range(256)) * 4000, "two": b"refiner"}
    cache, chance, left = EngineCache(tmp_path), random.Random(0), set[str]()
    with Forked(STORE) as builders:
        for _ in range(50):
            builders.start(f"{chance.uniform(0.001, 0.04)} {tmp_path}")
            assert builders.wait() == -signal.SIGPROF
            left |= {path.suffix for path in tmp_path.iterdir()}
            found = cache.read(fields)
            assert found is None or dict(found.parts) == whole
            assert dict(cache.get_or_make(fields, lambda: StoredEntry(whole)).parts) == whole
            cache.forget(fields)
    assert ".partial" in left or ".engine" in left, "no kill hit a write: the test shows nothing"


COUNT = """
import sys, time
from pathlib import Path
from cliprl.engines import EngineCache
from cliprl.engines.cache.cache_store import StoredEntry
folder = Path(sys.argv[1])
def make():
    with (folder / "builds").open("a") as file:
        file.write("x")
    time.sleep(1)
    return StoredEntry({"one": b"1" * 100_000})
made = EngineCache(folder / "engines").get_or_make({"bundle": "b", "backend": "o", "precision": "p"}, make, print)
assert made.parts["one"] == b"1" * 100_000
"""


def test_eight_processes_at_once_make_one_build(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(8)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 8
    assert (tmp_path / "builds").read_text() == "x"


@dataclass(frozen=True)
class Unloadable:
    """A variant whose engines never load."""

    sidecar: Path | None = None
    backend = SimpleNamespace(name="openvino")
    precision = "bf16"

    def fields(self) -> Mapping[str, str]:
        return FIELDS

    def load(self, made: StoredEntry) -> Any:
        assert made.parts["one"]
        raise EngineError("it does not load")


def test_an_engine_built_anew_may_be_refused(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """One from the cache does not load: what is built in its place is held to the reference too."""
    stored(cache)
    refused = StoredEntry({}, {"faults": ["encoder: 3.00% of labels agree, not 99%"]})
    monkeypatch.setattr(load_engines, "_make", lambda *rest: refused)
    variant: Any = Unloadable()
    with pytest.raises(EngineError, match=r"refused by the accuracy gate: encoder: 3\.00%"):
        load_engines.serve(variant, cache)


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    build, said = Builder(), list[str]()
    assert dict(EngineCache().get_or_make(FIELDS, build, said.append).parts) == dict(MADE.parts)
    assert "compiling for this run alone" in said[0]
    assert not list(tmp_path.iterdir())
