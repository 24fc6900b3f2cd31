"""What TensorRT learns at work is kept beside the engines; damaged, foreign or unwritable, it costs time and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from cliprl.engines import EngineError, open_bundle
from cliprl.engines.backends.engine import Request
from cliprl.engines.backends.tensorrt import backend as tensorrt_backend
from cliprl.engines.backends.tensorrt.backend import TensorRt
from cliprl.engines.backends.tensorrt.build import TensorRtPlan
from cliprl.engines.backends.tensorrt.caches import (
    Kernels,
    Timings,
    read_sidecar,
    runtime_path,
    timing_path,
    write_sidecar,
)
from cliprl.engines.backends.tensorrt.engine import _context
from cliprl.engines.backends.tensorrt.messages import make_logger
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cache.engine_cache import EngineCache, entry_name
from cliprl.engines.selection.engine_variant import EngineVariant
from cliprl.engines.selection.load_engines import serve

FIELDS = {"bundle": "small", "backend": "tensorrt_rtx", "precision": "f16"}
PLAN, SHAPES = b"a plan", ((1, 3),)


class FakeCache:
    """TensorRT's timing or runtime cache: bytes of this machine, which begin so, are taken; others are not."""

    def __init__(self) -> None:
        self.data = b"this machine:"

    def deserialize(self, blob: bytes) -> bool:
        fits = blob.startswith(b"this machine:")
        self.data = blob if fits else self.data
        return fits

    def serialize(self) -> bytes:
        return self.data


class FakeConfig:
    """A runtime's or a builder's configuration, as far as it has to do with caches."""

    def __init__(self) -> None:
        self.attached: FakeCache | None = None

    def create_runtime_cache(self) -> FakeCache:
        return FakeCache()

    def set_runtime_cache(self, cache: FakeCache) -> bool:
        self.attached = cache
        return True

    def create_timing_cache(self, blob: bytes) -> FakeCache:
        cache = FakeCache()
        cache.data = blob or cache.data
        return cache

    def set_timing_cache(self, cache: FakeCache, ignore_mismatch: bool) -> bool:
        fits = ignore_mismatch or cache.data.startswith(b"this machine:")
        self.attached = cache if fits else self.attached
        return fits

    def get_timing_cache(self) -> FakeCache | None:
        return self.attached

    def learn(self, what: bytes) -> None:
        assert self.attached is not None
        self.attached.data += what


def start(path: Path | None, learned: bytes = b"", plan: bytes = PLAN) -> tuple[bool, bytes]:
    """One start of an engine, which makes kernels: whether it took those that were kept, and what it ended with."""
    config = FakeConfig()
    kernels = Kernels(config, path, plan)
    if config.attached is None:
        return kernels.taken, b""
    config.learn(learned)
    kernels.save(SHAPES)
    return kernels.taken, config.attached.data


def build(path: Path | None, learned: bytes = b"") -> bytes:
    """One build, which times kernels: what the builder's cache held at its beginning."""
    config = FakeConfig()
    timings = Timings(config, path)
    if config.attached is None:
        return b""
    found = config.attached.data
    config.learn(learned)
    timings.save()
    return found


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    return runtime_path(tmp_path / "small-tensorrt_rtx-f16-0123", "encoder")


@pytest.fixture
def timings(tmp_path: Path) -> Path:
    return timing_path(
        tmp_path / "any", {"tensorrt": "11.4 for CUDA 13", "driver": "580.95", "gpu": "NVIDIA/H100 sm90"}
    )


def test_a_second_start_takes_the_kernels_of_the_first(kernels: Path) -> None:
    assert start(kernels, b"one") == (False, b"this machine:one")
    assert start(kernels, b"two") == (True, b"this machine:onetwo")
    assert start(kernels) == (True, b"this machine:onetwo")
    assert start(kernels, plan=b"another plan") == (False, b"this machine:")


def test_new_shapes_are_kept_too_and_known_ones_cost_nothing(kernels: Path) -> None:
    config = FakeConfig()
    kept = Kernels(config, kernels, PLAN)
    kept.save(SHAPES)
    config.learn(b"unseen")
    kept.save(SHAPES)
    assert start(kernels)[1] == b"this machine:"
    kept.save(((2, 3),))
    assert start(kernels)[1] == b"this machine:unseen"


def test_a_second_build_begins_with_the_timings_of_the_first(timings: Path) -> None:
    assert build(timings, b"one") == b"this machine:"
    assert build(timings) == b"this machine:one"
    assert "/" not in timings.name


def test_without_a_place_nothing_is_kept() -> None:
    assert start(None) == (False, b"")
    assert build(None) == b""


def test_what_is_damaged_never_reaches_tensorrt(kernels: Path, timings: Path) -> None:
    start(kernels, b"one")
    build(timings, b"one")
    for path in (kernels, timings):
        whole = path.read_bytes()
        for wrong in (b"", whole[:-1], whole[:5], *(flipped(whole, i) for i in range(len(whole)))):
            path.write_bytes(wrong)
            assert not start(kernels, b"one")[0] if path == kernels else build(timings, b"one") == b"this machine:"
            assert path.read_bytes() == whole, "it is written anew"


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_what_tensorrt_refuses_is_replaced(kernels: Path, timings: Path) -> None:
    start(kernels, b"one")
    tie = Kernels(FakeConfig(), kernels, PLAN)._tie
    write_sidecar(kernels, b"another GPU:", tie)
    write_sidecar(timings, b"another GPU:")
    assert start(kernels, b"one") == (False, b"this machine:one")
    assert build(timings, b"one") == b"this machine:"
    assert start(kernels)[0]
    assert build(timings) == b"this machine:one"


def test_a_place_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "missing" / "below", tmp_path / "folder"):
        assert start(path, b"one") == (False, b"this machine:one")
        assert build(path, b"one") == b"this machine:"
        assert read_sidecar(path) == b""
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_kernels_belong_to_entries_and_clearing_removes_timings(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    sidecar, size = tmp_path / entry_name(FIELDS), 1000
    lost, shared = runtime_path(tmp_path / "lost", "encoder"), timing_path(sidecar, {"tensorrt": "11.4"})
    cache.get_or_make(FIELDS, lambda: StoredEntry({"encoder": PLAN}, {"faults": []}))
    (before,) = cache.entries()
    for path in (runtime_path(sidecar, "encoder"), runtime_path(sidecar, "refiner"), lost, shared):
        write_sidecar(path, bytes(size - 32))
    (entry,) = cache.entries()
    assert entry.size == before.size + 2 * size
    cache.get_or_make(FIELDS | {"precision": "f32"}, lambda: StoredEntry({"encoder": PLAN}, {"faults": []}))
    assert lost.exists(), "it may be another process's, whose entry is yet to be written"
    os.utime(lost, (0, 0))
    cache.get_or_make(FIELDS | {"precision": "int8"}, lambda: StoredEntry({"encoder": PLAN}, {"faults": []}))
    assert not lost.exists()
    cache.forget(FIELDS)
    assert not list(tmp_path.glob("*.runtime"))
    assert shared.exists()
    assert cache.clear() == 2
    assert not [*tmp_path.glob("*.timing"), *tmp_path.glob("*.engine")]


def test_an_execution_context_of_rtx_is_made_with_the_kernels(kernels: Path) -> None:
    start(kernels, b"one")
    strategy = SimpleNamespace(EAGER="eager")
    rtx = SimpleNamespace(DynamicShapesKernelSpecializationStrategy=strategy)
    engine = SimpleNamespace(create_runtime_config=FakeConfig, create_execution_context=lambda config=None: config)
    kept, config = _context(rtx, engine, kernels, PLAN)
    assert kept is not None
    assert kept.taken
    assert config.attached.data == b"this machine:one"
    assert _context(SimpleNamespace(), engine, kernels, PLAN) == (None, None)


class Asked(TensorRt):
    """TensorRT up to where a GPU would be needed: notes what is asked of it, and refuses."""

    def build(self, request: Request) -> bytes:
        self.sidecar = request.sidecar
        raise EngineError("there is no GPU")

    def identity(self) -> Mapping[str, str]:
        return {}


def test_what_is_served_is_told_its_place_in_the_cache(tmp_path: Path) -> None:
    backend = Asked("tensorrt")
    variant = EngineVariant(open_bundle("small"), backend, "f16", 1)
    with pytest.raises(EngineError, match="no GPU"):
        serve(variant, EngineCache(tmp_path))
    assert backend.sidecar == tmp_path / entry_name(variant.fields())


def test_only_the_tensorrt_that_times_is_given_timings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Path | None] = {}

    def make(package: str, *_: object, timings: Path | None) -> TensorRtPlan:
        given[package] = timings
        return TensorRtPlan(PLAN, {}, {}, {})

    monkeypatch.setattr(tensorrt_backend, "make_engine_plan", make)
    monkeypatch.setattr(TensorRt, "identity", lambda self: {self.name: "1"})
    for name in ("tensorrt", "tensorrt_rtx"):
        TensorRt(name).build(Request(tmp_path / "encoder.onnx", "f16", sidecar=tmp_path / "entry"))
    assert given == {"tensorrt": tmp_path / "tensorrt_1.timing", "tensorrt_rtx": None}
    TensorRt("tensorrt").build(Request(tmp_path / "encoder.onnx", "f16"))
    assert given["tensorrt"] is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_builder_takes_a_timing_cache_of_its_own_making(tmp_path: Path) -> None:
    """The real calls, which TensorRT for RTX has under the same names, though it times nothing."""
    rtx = pytest.importorskip("tensorrt_rtx")
    config = rtx.Builder(make_logger(rtx)).create_builder_config()
    Timings(config, tmp_path / "kept.timing").save()
    assert isinstance(config.get_timing_cache(), rtx.ITimingCache)
    assert read_sidecar(tmp_path / "kept.timing") == bytes(config.get_timing_cache().serialize())
