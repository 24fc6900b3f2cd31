"""Engines that take any number of classes: a prompt more or less compiles nothing."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from waiting import PATIENCE

from cliprl.engines import (
    Bundle,
    CompiledBundle,
    EngineCache,
    EngineError,
    UsageError,
    add_reference,
    load_engines,
    open_bundle,
    seal_bundle,
)
from cliprl.engines.backends.engine import Request
from cliprl.engines.backends.openvino import backend
from cliprl.engines.backends.registry import compile_engine
from cliprl.engines.bundle.bundle import INT8_ENCODER, INT8_WEIGHTS
from cliprl.engines.bundle.reference_outputs import drawn_images, encoder_shapes, predict, refiner_shapes


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("cache") / "engines")


@pytest.fixture(scope="module")
def image() -> Any:
    manifest = open_bundle("small").manifest
    return drawn_images(manifest.height, manifest.width)[-1:]


def reworded(classes: int) -> Bundle:
    """The shipped bundle with so many classes: its own, mixed anew."""
    bundle = open_bundle("small")
    mixed = np.random.default_rng(classes).normal(0, 1, (classes, len(bundle.embeddings))) @ bundle.embeddings
    texts = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return replace(bundle, embeddings=texts)


def serve(bundle: Bundle, cache: EngineCache, said: list[str], precision: str = "f32") -> CompiledBundle:
    return load_engines(bundle, precision=precision, threads=1, cache=cache, log=said.append)


def run(pair: CompiledBundle, bundle: Bundle, image: Any) -> list[Any]:
    """Features, logits, refined logits, and the share that moved."""
    seen = {k: v.copy() for k, v in pair.encoder.run({"image": image, "text": bundle.embeddings}).items()}
    state = {"features": seen["features"], "base": seen["logits"], "prior": seen["logits"][..., ::-1].copy()}
    moved = pair.refiner.run(state | {"logits": seen["logits"], "text": bundle.embeddings})
    return [seen["features"], seen["logits"], moved["refined"].copy(), moved["moved"].copy()]


def fixed(bundle: Bundle) -> CompiledBundle:
    """The same networks compiled for exactly these classes."""
    encoder = compile_engine(bundle.encoder, precision="f32", threads=1, shapes=encoder_shapes(bundle))
    shapes = refiner_shapes(bundle, encoder)
    return CompiledBundle(encoder, compile_engine(bundle.refiner, precision="f32", threads=1, shapes=shapes), {})


def test_one_engine_is_correct_for_any_number_of_classes(cache: EngineCache, image: Any) -> None:
    said = list[str]()
    pair = serve(reworded(5), cache, said)
    assert sum("compiling small" in text for text in said) == 1
    assert pair.encoder.inputs["text"].shape[0] == -1
    assert pair.refiner.outputs["refined"].shape[1] == -1
    for classes in (5, 2, 64):
        bundle = reworded(classes)
        found, expected = run(pair, bundle, image), run(fixed(bundle), bundle, image)
        for one, other in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)
        assert (found[2].argmax(1) == expected[2].argmax(1)).mean() > 0.999
        assert found[3] == pytest.approx(expected[3], abs=1e-3)


def test_other_prompts_compile_nothing(cache: EngineCache) -> None:
    serve(reworded(5), cache, [])
    for classes in (6, 64):
        said = list[str]()
        serve(reworded(classes), cache, said)
        assert said == []


def test_batched_encoder_is_checked_and_gives_the_same_outputs(cache: EngineCache, tmp_path: Path) -> None:
    shutil.copytree(open_bundle("small").path, tmp_path / "copy")
    manifest = open_bundle("small").manifest
    images = drawn_images(manifest.height, manifest.width)[:3]
    bundle = add_reference(open_bundle(tmp_path / "copy"), images)
    said = list[str]()
    pair = load_engines(bundle, precision="f32", threads=1, batch=2, cache=cache, log=said.append)
    assert any("compiling" in text for text in said)
    assert pair.encoder.inputs["image"].shape[0] == 2
    assert pair.refiner.inputs["features"].shape[0] == 1
    assert pair.report["faults"] == []
    # Three pictures by twos: the third fills the second run.
    found = predict(pair.encoder, pair.refiner, images, bundle)
    single = load_engines(bundle, precision="f32", threads=1, cache=cache)
    for one, other in zip(found, predict(single.encoder, single.refiner, images, bundle), strict=True):
        assert one.shape == other.shape
        assert (one.argmax(1) == other.argmax(1)).mean() > 0.999
    with pytest.raises(UsageError, match="batch 0"):
        load_engines(bundle, batch=0)


def test_a_separate_engine_runs_the_bundles_own_classes(cache: EngineCache) -> None:
    said = list[str]()
    pair = serve(open_bundle("small"), cache, said)
    assert pair.encoder.inputs["text"].shape == open_bundle("small").embeddings.shape
    serve(reworded(12), cache, said)
    assert sum("compiling small" in text for text in said) <= 2


def test_a_quantised_encoder_is_left_out_where_classes_change(cache: EngineCache, tmp_path: Path) -> None:
    shutil.copytree(open_bundle("small").path, tmp_path / "copy")
    for name in (INT8_ENCODER, INT8_WEIGHTS):
        (tmp_path / "copy" / name).write_bytes(b"never read")
    shipped = open_bundle("small")
    bundle = seal_bundle(tmp_path / "copy", shipped.manifest, shipped.embeddings)
    with pytest.raises(UsageError, match=r"int8.*f32"):
        serve(replace(bundle, embeddings=reworded(4).embeddings), cache, [], "int8")


def test_networks_are_not_pinned_to_the_same_processor(cache: EngineCache, image: Any) -> None:
    """The encoder and the refiner run at the same time: on one processor each would wait for the other."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor, or a system that does not tell")
    bundle = open_bundle("small")
    pair, allowed, seen = serve(bundle, cache, []), os.sched_getaffinity(0), list[set[int]]()
    done = threading.Event()
    runner = threading.Thread(target=lambda: [run(pair, bundle, image) for _ in iter(done.is_set, True)])
    runner.start()
    while len(seen) < 300 and runner.native_id is not None:
        seen.append(os.sched_getaffinity(runner.native_id))
        done.wait(0.001)
    done.set()
    runner.join()
    assert all(processors == allowed for processors in seen)


def test_runs_at_the_same_time_give_the_same_outputs(cache: EngineCache, image: Any) -> None:
    bundle = open_bundle("small")
    encoder = serve(bundle, cache, []).encoder
    images = [np.roll(image, 40 * turn, 2) for turn in range(6)]  # more than the encoder has requests
    alone = [encoder.run({"image": each, "text": bundle.embeddings})["logits"].copy() for each in images]
    assert not np.array_equal(*alone[:2])
    found: list[Any] = [None] * len(images)
    begin = threading.Barrier(len(images))

    def run_one(number: int) -> None:
        begin.wait(30)
        found[number] = encoder.run({"image": images[number], "text": bundle.embeddings})["logits"].copy()

    threads = [threading.Thread(target=run_one, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, alone)


def test_features_are_handed_on_as_they_lie_in_memory(image: Any) -> None:
    """Channels last, so that neither network moves them; what else comes in with these values gives the same."""
    bundle = open_bundle("small")
    pair = fixed(bundle)
    seen = pair.encoder.run({"image": image, "text": bundle.embeddings})
    features = seen["features"]
    assert features.shape == pair.encoder.outputs["features"].shape == pair.refiner.inputs["features"].shape
    assert features.transpose(0, 2, 3, 1).flags.c_contiguous
    state = dict.fromkeys(("logits", "base", "prior"), seen["logits"]) | {"text": bundle.embeddings}
    expected = pair.refiner.run(state | {"features": features})["refined"].copy()
    moved = pair.refiner.run(state | {"features": np.ascontiguousarray(features)})["refined"]
    np.testing.assert_array_equal(moved, expected)


def test_a_second_copy_that_does_not_load_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for want of memory, while another run is under way; that one ends as it would have."""
    begun, end, core = Event(), Event(), MagicMock()

    def infer(*_: object, **__: object) -> list[object]:
        begun.set()
        assert end.wait(PATIENCE)
        return []

    compiled = SimpleNamespace(inputs=[], outputs=[], create_infer_request=lambda: SimpleNamespace(infer=infer))
    core.import_model.side_effect = [compiled, RuntimeError("Exception from src/x.cpp:1:\nstd::bad_alloc")]
    monkeypatch.setattr(backend, "_core", lambda: core)
    engine = backend.OpenVino().load(b"", Request(Path("encoder.onnx"), "f32", threads=1))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(engine.run, {})
        assert begun.wait(PATIENCE)
        try:
            with pytest.raises(EngineError, match=r"^openvino can't load what it built: .*bad_alloc$"):
                engine.run({})
        finally:
            end.set()
        assert first.result(PATIENCE) == {}


def test_a_forked_process_is_refused_where_it_would_hang() -> None:
    """OpenVINO's threads are not in a process that was forked after it had started them."""
    backend.OpenVino().identity()
    if not (child := os.fork()):
        status = 0
        try:
            backend.OpenVino().identity()
        except EngineError as error:
            status = 7 * ("'spawn'" in str(error))
        finally:  # whatever it raises, the child runs no more tests
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
