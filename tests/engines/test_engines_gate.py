"""No engine serves that says something else than the reference; what serves is compiled once and starts fast."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine

from cliprl.engines import (
    Bundle,
    BundleError,
    EngineCache,
    EngineError,
    UsageError,
    add_reference,
    load_engines,
    open_bundle,
    seal_bundle,
)
from cliprl.engines.backends import registry
from cliprl.engines.backends.engine import (
    Engine,
    Probe,
    Request,
)
from cliprl.engines.backends.openvino import backend as openvino_backend
from cliprl.engines.backends.openvino.backend import OpenVino, why_unsupported
from cliprl.engines.backends.openvino.rewrites import compare_with_features
from cliprl.engines.backends.registry import backend_of, compile_engine, ready_backends
from cliprl.engines.bundle.bundle import INT8_ENCODER, INT8_WEIGHTS
from cliprl.engines.bundle.reference_outputs import Reference, compute, drawn_images, encoder_shapes, reference_of
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cpu_count import network_threads
from cliprl.engines.onnx.nncf_int8 import add_int8
from cliprl.engines.selection import engine_variant
from cliprl.engines.selection.accuracy_gate import compare_logits, judge
from cliprl.engines.selection.engine_variant import compare_with_reference, engine_variants
from cliprl.models.export.probe_images import probe_images

NAMES = ("background", "shaft", "tip")
Values = Mapping[str, Any]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped networks with a reference of two rendered scenes."""
    folder = tmp_path_factory.mktemp("bundle") / "copy"
    shutil.copytree(open_bundle("small").path, folder)
    manifest = open_bundle(folder).manifest
    return add_reference(open_bundle(folder), probe_images(manifest.height, manifest.width)[:2])


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def logits(seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Decided logits (2, 3, 16, 20): every class has a third of the cells, give or take."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (2, 1, 16, 20))
    return (8.0 * (labels == np.arange(3)[None, :, None, None]) + rng.normal(0, 1, (2, 3, 16, 20))).astype(np.float32)


def test_the_same_passes() -> None:
    comparison = compare_logits("encoder", logits(), logits(), NAMES)
    assert comparison.faults() == []
    assert comparison.cosine == pytest.approx(1)
    assert set(comparison.classes) == set(NAMES)


def test_a_common_offset_of_all_classes_changes_nothing() -> None:
    offset = np.random.default_rng(1).normal(0, 50, (2, 1, 16, 20)).astype(np.float32)
    assert compare_logits("encoder", logits() + offset, logits(), NAMES).faults() == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda x: np.where(np.arange(20) == 3, np.nan, x), "finite"),
        (lambda x: np.where(np.arange(20) == 3, np.inf, x), "finite"),
        (lambda x: np.roll(x, 1, axis=1), "labels agree"),
        (lambda x: x[:, :, ::-1], "labels agree"),
        (lambda x: -x, "cosine"),
        (lambda x: np.zeros_like(x), "cosine"),
        (lambda x: x + np.random.default_rng(2).normal(0, 1, x.shape), "cosine"),
        (lambda x: x - 100 * (np.arange(3) == 2)[None, :, None, None], "IoU of tip"),
    ],
)
def test_what_is_off_is_told_with_figures(change: Change, word: str) -> None:
    faults = compare_logits("encoder", change(logits()).astype(np.float32), logits(), NAMES).faults()
    assert any(word in fault for fault in faults)


def test_vanished_small_class_is_not_hidden_by_large_one() -> None:
    expected = np.zeros((1, 2, 100, 100), np.float32)
    expected[:, 0] = 5
    expected[:, 1, :8, :10] = 9
    found = expected.copy()
    found[:, 1, :8, :10] = 4.9
    comparison = compare_logits("encoder", found, expected, ("background", "needle"))
    assert comparison.agreement > 0.99
    assert any("needle" in fault for fault in comparison.faults())


def test_thin_class_is_forgiven_ties_but_not_decided_cells() -> None:
    expected = np.zeros((1, 2, 100, 100), np.float32)
    expected[:, 0] = 5
    expected[:, 1, :8, :10] = 9
    expected[:, 1, :2, :10] = 5.2
    found = expected.copy()
    found[:, 1, :2, :10] = 4.9
    comparison = compare_logits("encoder", found, expected, ("background", "needle"))
    assert comparison.agreement == pytest.approx(0.998)
    assert comparison.classes["needle"] == 1.0
    found[:, 1, :3, :10] = 4.9
    assert compare_logits("encoder", found, expected, ("background", "needle")).classes["needle"] < 0.9


def test_drawn_pictures_are_judged_less_strictly() -> None:
    found = logits().copy()
    found.reshape(2, 3, -1)[0, :, :9] *= -1
    images = np.zeros((2, 64, 80, 3), np.uint8)
    drawn, own = (judge(found, found, Reference(images, logits(), logits(), name), NAMES)[0] for name in ("drawn", "x"))
    assert 0.98 < drawn.agreement == own.agreement < 0.99
    assert not any("labels agree" in fault for fault in drawn.faults())
    assert any("labels agree" in fault for fault in own.faults())


def test_both_stages_are_judged() -> None:
    reference = Reference(np.zeros((2, 64, 80, 3), np.uint8), logits(), logits(), "drawn")
    first, second = judge(logits(), -logits(), reference, NAMES)
    assert first.faults() == []
    assert second.faults()


def test_a_stored_reference_is_used_and_checked(bundle: Bundle) -> None:
    reference = reference_of(bundle)
    assert reference.source == bundle.manifest.hashes["probe.npz"]
    assert len(reference.images) == 2
    np.testing.assert_allclose(reference.refined, compute(bundle, reference.images)[1], atol=1e-3)


def test_a_bundle_without_one_is_held_to_drawn_pictures(bundle: Bundle) -> None:
    hashes = {name: value for name, value in bundle.manifest.hashes.items() if name != "probe.npz"}
    assert reference_of(replace(bundle, manifest=replace(bundle.manifest, hashes=hashes))).source == "drawn"


def test_drawn_pictures_are_the_same_every_time_and_not_alike() -> None:
    images = drawn_images(64, 80)
    np.testing.assert_array_equal(images, drawn_images(64, 80))
    assert images.shape == (4, 64, 80, 3)
    assert len({image.tobytes() for image in images}) == 4
    assert images.std() > 20


def test_a_garbled_reference_is_named(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle.path, folder)
    np.savez(folder / "probe.npz", pictures=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(BundleError, match=r"probe\.npz"):
        reference_of(seal_bundle(folder, bundle.manifest, bundle.embeddings))


def test_first_start_reports_its_compilation_and_second_compiles_nothing(bundle: Bundle, cache: EngineCache) -> None:
    said = list[str]()
    first = load_engines(bundle, cache=cache, log=said.append)
    assert any("compiling small for openvino" in text for text in said)
    assert first.report["faults"] == []
    said.clear()
    second = load_engines(bundle, cache=cache, log=said.append)
    assert said == []
    inputs = {"image": np.full(encoder_shapes(bundle)["image"], 90, np.uint8), "text": bundle.embeddings}
    np.testing.assert_array_equal(first.encoder.run(inputs)["logits"], second.encoder.run(inputs)["logits"])
    assert (first.backend, first.precision) == (second.backend, second.precision)


def test_another_number_of_threads_is_another_engine(bundle: Bundle, cache: EngineCache) -> None:
    said = list[str]()
    load_engines(bundle, cache=cache, precision="f32")
    usual = network_threads()
    load_engines(bundle, cache=cache, precision="f32", threads=usual + 1, log=said.append)
    assert any(f"threads {usual}, now {usual + 1}" in text for text in said)
    assert len(cache.entries()) == 2


class Altered(FakeEngine):
    """An engine whose outputs come out changed."""

    def __init__(self, engine: Engine, change: Change) -> None:
        super().__init__(engine)
        self.engine, self.change = engine, change

    def run(self, inputs: Values) -> Values:
        outputs = self.engine.run(inputs)
        return {k: self.change(v) if np.ndim(v) == 4 else v for k, v in outputs.items()}


class Faulty(OpenVino):
    """OpenVINO, but its bf16 engines are wrong."""

    def __init__(self, change: Change) -> None:
        self.change, self.builds = change, list[str]()

    def precisions(self, files: Collection[str] = ()) -> tuple[str, ...]:
        return ("bf16", "f32")

    def lacks(self, precision: str, files: Collection[str]) -> str:
        return "" if precision in self.precisions(files) else "faulty"

    def build(self, request: Request) -> bytes:
        self.builds.append(request.precision)
        return super().build(request)

    def load(self, blob: bytes, request: Request) -> Any:
        engine = super().load(blob, request)
        return Altered(engine, self.change) if request.precision == "bf16" else engine


FAULTS: dict[str, Change] = {
    "nan": lambda x: np.full_like(x, np.nan),
    "shuffled": lambda x: np.roll(x, 1, axis=1),
    "rotated": lambda x: x[:, :, ::-1].copy() * -1,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_engine_is_refused_and_the_next_precision_serves(
    bundle: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    faulty, said = Faulty(FAULTS[fault]), list[str]()
    monkeypatch.setattr(engine_variant, "ready_backends", lambda device, log: [faulty])
    pair = load_engines(bundle, cache=cache, log=said.append)
    assert pair.precision == "f32"
    assert any("bf16 is refused" in text for text in said)
    faulty.builds.clear()
    assert load_engines(bundle, cache=cache).precision == "f32"
    assert faulty.builds == []


def test_inaccurate_engine_chosen_by_name_is_error_with_figures(
    bundle: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_variant, "ready_backends", lambda device, log: [Faulty(FAULTS["shuffled"])])
    with pytest.raises(EngineError) as caught:
        load_engines(bundle, cache=cache, precision="bf16")
    assert "\n" not in str(caught.value)
    for word in ("bf16", "refused", "%"):
        assert word in str(caught.value)
    assert all(not entry.report or entry.report["faults"] for entry in cache.entries())


def test_a_whole_entry_that_does_not_load_is_made_again(bundle: Bundle, cache: EngineCache) -> None:
    chosen = next(iter(engine_variants(bundle, "cpu", "f32")))
    report = {"faults": [], "comparisons": []}
    cache.get_or_make(chosen.fields(), lambda: StoredEntry({"encoder.onnx": b"junk", "refiner.onnx": b"junk"}, report))
    said = list[str]()
    assert load_engines(bundle, precision="f32", cache=cache, log=said.append).precision == "f32"
    assert any("compiling again" in text for text in said)


@pytest.mark.parametrize(
    ("flags", "bf16", "quantised", "expected"),
    [
        ({"sse4_1"}, False, True, {"f32"}),
        ({"avx2"}, False, True, {"int8", "f32"}),
        ({"avx512_vnni"}, False, False, {"f32"}),
        ({"avx512_vnni"}, False, True, {"int8", "f32"}),
        ({"avx512_vnni"}, True, True, {"bf16", "int8", "f32"}),
        ({"amx_int8"}, True, False, {"bf16", "f32"}),
    ],
)
def test_a_cpu_has_what_its_instructions_and_the_bundle_allow(
    flags: set[str], bf16: bool, quantised: bool, expected: set[str]
) -> None:
    answers = {
        p: why_unsupported(p, frozenset(flags), bf16, quantised) for p in ("f32", "bf16", "int8", "f16", "fp8", "f12")
    }
    assert {precision for precision, reason in answers.items() if not reason} == expected
    for precision, reason in answers.items():
        assert not reason or precision in reason


def test_an_int8_encoder_is_made_served_and_sealed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Older CPUs run it too, though less well: they are not offered it."""
    pytest.importorskip("nncf")
    monkeypatch.setattr(openvino_backend, "_flags", lambda: ["avx512_vnni"])
    shutil.copytree(bundle.path, tmp_path / "copy")
    images = drawn_images(bundle.manifest.height, bundle.manifest.width)
    quantised = add_int8(open_bundle(tmp_path / "copy"), images)
    assert {INT8_ENCODER, INT8_WEIGHTS} <= set(quantised.manifest.hashes)
    chosen = next(c for c in engine_variants(quantised, "cpu") if c.precision == "int8")
    assert quantised.manifest.hashes[INT8_WEIGHTS] in chosen.fields()["encoder"]
    report = [c.to_json() for c in compare_with_reference(chosen.compile()[1], quantised, reference_of(quantised))]
    assert report[0]["finite"]
    assert report[0]["agreement"] > 0.9
    (quantised.path / INT8_WEIGHTS).write_bytes(b"0" + (quantised.path / INT8_WEIGHTS).read_bytes()[1:])
    with pytest.raises(BundleError, match=INT8_WEIGHTS):
        open_bundle(quantised.path)


def test_without_nncf_or_pictures_quantising_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    images = drawn_images(bundle.manifest.height, bundle.manifest.width)
    with pytest.raises(UsageError, match="at least 4"):
        add_int8(bundle, images[:1])
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineError, match="pip install nncf"):
        add_int8(bundle, images)


def test_unknown_names_are_told(bundle: Bundle, cache: EngineCache) -> None:
    with pytest.raises(UsageError, match=r"tpu.*cpu"):
        load_engines(bundle, device="tpu", cache=cache)
    with pytest.raises(UsageError, match=r"onnx.*openvino"):
        backend_of("onnx")
    with pytest.raises(UsageError, match=r"f12.*f32"):
        load_engines(bundle, precision="f12", cache=cache)


def test_where_nothing_serves_every_reason_is_given(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "probe", lambda name: Probe(name, False, "no such luck: pray"))
    with pytest.raises(EngineError, match="openvino: no such luck"):
        compile_engine(bundle.encoder)


def test_why_a_preferred_backend_does_not_serve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "tensorrt": Probe("tensorrt", False, "too old: update"),
        "tensorrt_rtx": Probe("tensorrt_rtx", False, "not installed: install"),
        "torch": Probe("torch", True, "torch on a GPU"),
    }
    said = list[str]()
    monkeypatch.setattr(registry, "probe", answers.__getitem__)
    assert [backend.name for backend in ready_backends("cuda", said.append)] == ["torch"]
    assert said == ["tensorrt does not serve: too old: update", "tensorrt_rtx does not serve: not installed: install"]


START = """
import sys
from pathlib import Path
import numpy as np
from cliprl.engines import EngineCache, load_engines, open_bundle
bundle = open_bundle(sys.argv[1])
pair = load_engines(bundle, threads=1, cache=EngineCache(Path(sys.argv[2])), log=print)
image = np.full((1, bundle.manifest.height, bundle.manifest.width, 3), 90, np.uint8)
print("result", pair.encoder.run({"image": image, "text": bundle.embeddings})["logits"].tobytes().hex()[:4000])
"""


def test_three_starts_at_once_compile_once_and_all_run(bundle: Bundle, tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(bundle.path), str(tmp_path / "engines")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    assert sum("this is done once" in text for text in said) == 1
    assert len({text[text.index("result") :] for text in said}) == 1


@pytest.mark.parametrize("classes", [12, -1])
def test_texts_compared_with_features_give_the_same_logits(monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    bundle, image = open_bundle("small"), np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    inputs = {"image": image, "text": bundle.embeddings}
    shapes = {"image": image.shape, "text": (classes, bundle.embeddings.shape[1])}
    request = Request(bundle.encoder, "f32", threads=1, shapes=shapes)

    def compiled() -> Mapping[str, Any]:
        return OpenVino().load(OpenVino().build(request), request).run(inputs)

    narrow = compiled()
    monkeypatch.setattr(openvino_backend, "compare_with_features", lambda model: None)
    wide = compiled()
    assert np.abs(narrow["logits"] - wide["logits"]).max() < 1e-4
    assert np.array_equal(narrow["features"], wide["features"])


@pytest.mark.parametrize("file", ["encoder", "int8_encoder"])
def test_texts_are_compared_in_the_channels_of_features(file: str) -> None:
    bundle = open_bundle("small")
    path = bundle.encoder if file == "encoder" else bundle.path / INT8_ENCODER
    model = openvino_backend._core().read_model(path)

    def widths() -> list[int]:
        means = [node for node in model.get_ordered_ops() if node.get_type_name() == "ReduceMean"]
        shapes = [node.input_value(0).get_partial_shape() for node in means]
        return [shape[1].get_length() for shape in shapes if len(shape) == 4]

    features = model.output("features").get_partial_shape()[1].get_length()
    assert widths() == [bundle.embeddings.shape[1]]
    for _ in range(2):  # a network without a wide head is left as it is
        compare_with_features(model)
        assert widths() == [features]


@pytest.mark.parametrize(("side", "numerator", "kept"), [(1, 1, False), (3, 1, True), (1, 2, True)])
def test_other_heads_are_left_as_they_are(side: int, numerator: int, kept: bool) -> None:
    from openvino import Model
    from openvino import opset13 as ops

    def convolved(image: Any, kernel: Any, pad: int) -> Any:
        return ops.convolution(image, kernel, [1, 1], [pad, pad], [pad, pad], [1, 1])

    features, texts = ops.parameter([1, 4, 6, 8], np.float32), ops.parameter([3, 5], np.float32)
    kernel, bias = np.ones((5, 4, side, side), np.float32), np.ones((1, 5, 1, 1), np.float32)
    pixels = ops.add(convolved(features, ops.constant(kernel), side // 2), ops.constant(bias))
    mean = ops.reduce_mean(ops.power(pixels, np.float32(2)), np.array([1]), True)
    factor = ops.divide(np.float32(numerator), ops.sqrt(ops.add(mean, np.float32(1e-6))))
    kernels = ops.unsqueeze(texts, np.array([2, 3]))
    logits = ops.add(convolved(ops.multiply(pixels, factor), kernels, 0), np.float32(1))
    logits.output(0).set_names({"logits"})
    model = Model([logits], [features, texts])
    compare_with_features(model)
    assert any(node.get_name() == pixels.get_name() for node in model.get_ordered_ops()) == kept
