"""Whatever happened to a cached engine or to a bundle, what runs is what was compiled from the bundle that was sealed.

CLIPRL_LONG=1 kills fifty builders instead of six.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cliprl.engines import Bundle, BundleError, CompiledBundle, EngineCache, add_reference, load_engines, open_bundle
from cliprl.engines.bundle.bundle import RANGES_FILE
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.engines.bundle.reference_outputs import Reference, drawn_images, predict, reference_of
from cliprl.engines.cache.engine_cache import entry_name
from cliprl.engines.selection.engine_variant import EngineVariant, engine_variants

KILLS = 50 if os.environ.get("CLIPRL_LONG") else 6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped networks with every kind of file that a bundle may have."""
    folder = tmp_path_factory.mktemp("bundle") / "copy"
    shutil.copytree(open_bundle("small").path, folder)
    (folder / RANGES_FILE).write_bytes(bytes(range(256)) * 8)
    manifest = open_bundle(folder).manifest
    return add_reference(open_bundle(folder), drawn_images(manifest.height, manifest.width)[:1])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("cache") / "engines")


def candidate_of(bundle: Bundle) -> EngineVariant:
    return next(iter(engine_variants(bundle, "cpu", "f32", threads=1)))


def serve(bundle: Bundle, cache: EngineCache, said: list[str]) -> CompiledBundle:
    return load_engines(bundle, precision="f32", threads=1, cache=cache, log=said.append)


def agree(pair: CompiledBundle, bundle: Bundle, reference: Reference) -> bool:
    """Whether a pair says what the reference says, to the accuracy of 32 bits."""
    found = predict(pair.encoder, pair.refiner, reference.images, bundle)
    expected = (reference.base, reference.refined)
    return all(np.mean(f.argmax(1) == e.argmax(1)) > 0.999 for f, e in zip(found, expected, strict=True))


def flipped(path: Path, place: float, change: int) -> bytes:
    """Change the byte at `place` (0 to 1 of the file); returns the file as it was."""
    whole = path.read_bytes()
    at = min(int(place * len(whole)), len(whole) - 1)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([whole[at] ^ change]))
    return whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data(), place=st.floats(0, 1), change=st.integers(1, 255))
def test_flipped_byte_in_any_bundle_file_is_noticed(
    bundle: Bundle, data: st.DataObject, place: float, change: int
) -> None:
    name = data.draw(st.sampled_from([MANIFEST, *bundle.manifest.hashes]))
    whole = flipped(bundle.path / name, place, change)
    try:
        with pytest.raises(BundleError) as caught:
            open_bundle(bundle.path)
        assert "\n" not in str(caught.value)
        assert name == MANIFEST or name in str(caught.value)
    finally:
        (bundle.path / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["encoder.onnx", "refiner.onnx"])
def test_a_file_that_changes_between_opening_and_compiling_is_noticed(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    cache, whole = EngineCache(tmp_path), flipped(bundle.path / name, 0.7, 1)
    try:
        with pytest.raises(BundleError, match=name):
            serve(bundle, cache, [])
        assert cache.entries() == []
    finally:
        (bundle.path / name).write_bytes(whole)


def test_bundle_rewritten_before_compilation_is_treated_as_new(tmp_path: Path) -> None:
    shutil.copytree(open_bundle("small").path, tmp_path / "copy")
    opened = open_bundle(tmp_path / "copy")
    images = drawn_images(opened.manifest.height, opened.manifest.width)[:1]
    add_reference(opened, images)
    with pytest.raises(BundleError, match="written anew"):
        serve(opened, EngineCache(tmp_path / "engines"), [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(suffix=st.sampled_from([".engine", ".json"]), place=st.floats(0, 1), change=st.integers(1, 255))
def test_a_flipped_byte_of_a_cached_engine_is_noticed(
    bundle: Bundle, cache: EngineCache, suffix: str, place: float, change: int
) -> None:
    fields = candidate_of(bundle).fields()
    if cache.read(fields) is None:
        serve(bundle, cache, [])
    path = cache.folder / (entry_name(fields) + suffix)
    whole = flipped(path, place, change)
    said = list[str]()
    assert cache.read(fields, said.append) is None
    assert "damaged" in said[0]
    path.write_bytes(whole)


def test_a_damaged_engine_is_compiled_again_before_anything_runs(bundle: Bundle, cache: EngineCache) -> None:
    serve(bundle, cache, [])
    flipped(cache.folder / (entry_name(candidate_of(bundle).fields()) + ".engine"), 0.5, 255)
    said = list[str]()
    assert agree(serve(bundle, cache, said), bundle, reference_of(bundle))
    assert "damaged" in said[0]
    assert "compiling small" in said[1]


BUILD = """
from pathlib import Path
from cliprl.engines import EngineCache, load_engines, open_bundle
from cliprl.engines.backends.no_telemetry import openvino
openvino()
def main(folder):
    load_engines(open_bundle("{bundle}"), precision="f32", threads=1, cache=EngineCache(Path(folder)))
"""


def test_builder_killed_at_random_leaves_no_invalid_entry(bundle: Bundle, tmp_path: Path) -> None:
    folder, variant, reference = tmp_path / "engines", candidate_of(bundle), reference_of(bundle)
    chance, kept = random.Random(0), 0
    with Forked(BUILD.format(bundle=bundle.path)) as builders:
        builders.start(tmp_path / "whole")
        start = time.monotonic()
        assert builders.wait() == 0
        usual = time.monotonic() - start
        for kill in range(KILLS):
            child = builders.start(folder)
            time.sleep(chance.uniform(0, 1.1 * usual) if kill else 0)  # the first at once: it can't have finished
            builders.kill(child)
            made = EngineCache(folder).read(variant.fields())
            if made is not None:
                kept += 1
                assert agree(variant.load(made), bundle, reference)
                EngineCache(folder).forget(variant.fields())
    assert kept < KILLS, "no builder was killed before it had finished: the test shows nothing"
    said: list[Any] = []
    assert agree(serve(bundle, EngineCache(folder), said), bundle, reference)
    assert not any("waiting" in text for text in said), "a dead builder's lock still holds"
