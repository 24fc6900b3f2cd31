"""The input size of a bundle's networks is chosen at run time; what can't be is refused in one line."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from cliprl.engines import (
    Bundle,
    BundleError,
    EngineCache,
    UsageError,
    compile_engine,
    load_engines,
    open_bundle,
    own_size,
    seal_bundle,
    size_of,
    size_text,
    with_input_size,
)
from cliprl.engines.bundle.bundle import PROBE_FILE, REFINER
from cliprl.engines.bundle.reference_outputs import encoder_shapes, reference_of, refiner_shapes
from cliprl.engines.onnx.load import load_graph_as
from cliprl.engines.onnx.static_shapes import fold_sizes
from cliprl.engines.promptable.head import MaskHead
from cliprl.engines.selection.engine_variant import engine_variants

SMALL = (128, 160)


@pytest.fixture(scope="module")
def sized() -> Bundle:
    return with_input_size(open_bundle("small"), SMALL)


def copied(folder: Path) -> Bundle:
    shutil.copytree(open_bundle("small").path, folder)
    return open_bundle(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("300x400", "must be multiples of 32, such as 288x384"),
        ("384", "is not HEIGHTxWIDTH"),
        ("384x", "is not HEIGHTxWIDTH"),
        ("0x0", "at least 64"),
        ("32x64", "at least 64"),
        ("2048x2048", "more than the 1310720"),
        ("99999x99999", "multiples of 32"),
        ("auto", "is not HEIGHTxWIDTH"),
        ("640x512", "so give 512x640"),
        ("-384x480", "is not HEIGHTxWIDTH"),
    ],
)
def test_size_that_breaks_a_rule_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_input_size(open_bundle("small"), text)


@pytest.mark.parametrize(
    "text", ["9999x9999", "99999x100", "500x300", "300x500", "0x1", "4096x4096", "384", "700x2000"]
)
@pytest.mark.parametrize("own", [(256, 320), (320, 256), (256, 256)])
def test_every_size_that_a_refusal_advises_is_accepted(text: str, own: tuple[int, int]) -> None:
    small = open_bundle("small")
    bundle = replace(small, manifest=replace(small.manifest, height=own[0], width=own[1]))
    with pytest.raises(UsageError) as refused:
        with_input_size(bundle, text)
    advised = re.findall(r"\d+x\d+", re.split("such as|give", str(refused.value))[-1])
    assert advised
    for size in advised:
        assert size_text(size_of(with_input_size(bundle, size))) == size


def test_own_size_leaves_the_bundle_as_it_is() -> None:
    bundle = open_bundle("small")
    assert with_input_size(bundle, None) is bundle
    assert with_input_size(bundle, "256x320").own_size is None
    again = with_input_size(with_input_size(bundle, "384x480"), (256, 320))
    assert again.own_size is None
    assert size_of(again) == own_size(again) == (256, 320)
    odd = replace(bundle, manifest=replace(bundle.manifest, height=48, width=60))
    assert size_of(with_input_size(with_input_size(odd, "64x96"), (48, 60))) == (48, 60)


def test_reference_at_another_size_is_computed_here(sized: Bundle) -> None:
    reference, own = reference_of(sized), reference_of(open_bundle("small"))
    assert reference.images.shape == (len(own.images), *SMALL, 3)
    assert reference.base.shape == reference.refined.shape == (len(own.images), len(sized.embeddings), 32, 40)
    assert reference.source == own.source
    assert np.isfinite(reference.refined).all()


def test_engines_and_head_run_at_the_chosen_size(sized: Bundle, tmp_path: Path) -> None:
    engines = load_engines(sized, precision="f32", threads=1, cache=EngineCache(tmp_path))
    image = reference_of(sized).images[:1]
    outputs = engines.encoder.run({"image": image, "text": sized.embeddings})
    logits = np.array(outputs["logits"])
    assert logits.shape[2:] == (32, 40)
    state = {"features": outputs["features"], "logits": logits, "base": logits, "prior": logits}
    assert engines.refiner.run(state | {"text": sized.embeddings})["refined"].shape == logits.shape
    head, none = MaskHead(sized, threads=1), np.zeros((0, 4))
    at = head.correct(outputs["features"], image, np.array([[80.0, 64.0]]), np.array([1]), none, np.zeros((32, 40)))
    assert at.shape == (32, 40)
    assert at[16, 20] > 0


def test_cache_keeps_the_sizes_apart(sized: Bundle) -> None:
    fields = [next(engine_variants(one, "cpu", "f32", 1)).fields() for one in (sized, open_bundle("small"))]
    assert fields[0]["shapes"] != fields[1]["shapes"]
    wider = next(engine_variants(with_input_size(open_bundle("small"), (160, 192)), "cpu", "f32", 1)).fields()
    assert wider["shapes"] not in (fields[0]["shapes"], fields[1]["shapes"])


def test_graph_that_is_made_for_one_size_is_named(tmp_path: Path) -> None:
    bundle = copied(tmp_path / "old")
    model = onnx.load(bundle.refiner)
    fold_sizes(model)
    onnx.save(model, bundle.refiner)
    old = seal_bundle(bundle.path, bundle.manifest, bundle.embeddings)
    cache = EngineCache(tmp_path / "cache")
    with pytest.raises(BundleError, match=r"can't take images of 128x160: its refiner.onnx is made for 256x320 alone"):
        load_engines(with_input_size(old, SMALL), precision="f32", threads=1, cache=cache)


def test_nonsense_at_another_size_is_refused(tmp_path: Path) -> None:
    bundle = copied(tmp_path / "odd")
    with np.load(bundle.path / PROBE_FILE) as file:
        stored = {name: file[name] for name in file.files}
    stored["base"] = np.roll(stored["base"], 1, axis=1)
    np.savez_compressed(bundle.path / PROBE_FILE, **stored)
    odd = seal_bundle(bundle.path, bundle.manifest, bundle.embeddings)
    with pytest.raises(
        BundleError, match=r"at input size 128x160 keeps \d+% of the labels that it gives at its own 256x320"
    ):
        reference_of(with_input_size(odd, SMALL))


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_graphs_for_a_gpu_get_the_chosen_size(sized: Bundle, precision: str) -> None:
    encoder = compile_engine(sized.encoder, precision="f32", shapes=encoder_shapes(sized), threads=1)
    for path, shapes in ((sized.encoder, encoder_shapes(sized)), (sized.refiner, refiner_shapes(sized, encoder))):
        model = onnx.load_from_string(load_graph_as(path, precision, "torch", shapes=shapes))
        found = {
            value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        for name in set(found) & {"features", "logits", "base", "prior", "refined"}:
            assert found[name][2:] == [32, 40], (path.name, name)
        if path.name == REFINER:
            assert {node.op_type for node in model.graph.node}.isdisjoint({"Range"})
