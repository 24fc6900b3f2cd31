"""A bundle from a stranger: every claim is bounded before it is believed, and a refusal is one line."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from cliprl.engines import BundleError, CliprlError, UsageError, load_engines, open_bundle
from cliprl.engines.bundle.bundle import EMBEDDINGS, ENCODER, PROBE_FILE, REFINER, TEXT, TOKENIZER, file_hash
from cliprl.engines.bundle.manifest import MANIFEST, sealed_text
from cliprl.engines.bundle.reference_outputs import reference_of
from cliprl.engines.bundle.text_encoder import TextEngine
from cliprl.engines.bundle.validation import read_array
from cliprl.engines.onnx.external_data import external_files
from cliprl.models.network.weights import _read as read_weights
from cliprl.models.training.checkpoint import read_checkpoint


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A copy of the shipped bundle."""
    return Path(shutil.copytree(open_bundle("small").path, tmp_path / "whole"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped bundle's manifest over small files: enough for all that is checked before a network is compiled."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    shipped = open_bundle("small").path
    for name in (MANIFEST, EMBEDDINGS):
        shutil.copy(shipped / name, folder / name)
    (folder / TOKENIZER).write_text("{}", encoding="utf-8")
    (folder / PROBE_FILE).write_bytes(b"")
    for name in (ENCODER, REFINER, TEXT):
        (folder / name).write_bytes(outside("", "nowhere").SerializeToString())
    data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    data["hashes"] = {name: file_hash(folder / name) for name in files}
    (folder / MANIFEST).write_text(sealed_text(data), encoding="utf-8")
    assert open_bundle(folder)
    return folder


def reseal(folder: Path, *more: str, **changes: Any) -> None:
    """Seal the manifest anew, as whoever wrote the bundle can: with changed fields and the hashes of the files as they are."""
    data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    names = [*data["hashes"], *more]
    data |= changes | {"hashes": {name: file_hash(folder / name) for name in names}}
    (folder / MANIFEST).write_text(sealed_text(data), encoding="utf-8")


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def assert_refused_in_a_line(call: Callable[[Path], object], path: Path) -> None:
    """What is not read is refused by a BundleError of one line, and by no other error."""
    problem = ""
    try:
        call(path)
    except BundleError as error:
        problem = str(error)
    assert "\n" not in problem


SIZE = {"height": 256, "width": 320, "stride": 4}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"input": SIZE | {"height": 1 << 40}}, "height"),
        ({"input": SIZE | {"width": -320}}, "width"),
        ({"input": SIZE | {"width": 321}}, "multiple"),
        ({"input": SIZE | {"stride": 0}}, "stride"),
        ({"input": SIZE | {"stride": 3}}, "stride"),
        ({"input": SIZE | {"height": 256.5}}, "height"),
        ({"input": SIZE | {"height": "256"}}, "height"),
        ({"input": [256, 320]}, "input: Input should be an object"),
        ({"steps": 10**9}, "steps"),
        ({"steps": True}, "steps"),
        ({"classes": []}, "classes"),
        ({"classes": {"a": 1}}, "classes: Input should be a valid array"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 100_000}, "name"),
        ({"text": {"context": 10**7, "templates": ["{}"]}}, "context"),
        ({"text": {"context": 32, "templates": ["{0.__class__.__mro__}"]}}, "template"),
        ({"text": {"context": 32, "templates": ["a {} {x}"]}}, "template"),
        ({"text": {"context": 32, "templates": ["a\x1b {}"]}}, "text.templates.0"),
        ({"text": {"context": 32, "templates": []}}, "templates"),
        ({"hashes": {"": "0" * 64}}, "hashes."),
        ({"hashes": {"x" * 201: "0" * 64}}, "hashes.xxx"),
        ({"hashes": {"../../secret": "0" * 64}}, "hashes."),
        ({"hashes": {"/etc/hostname": "0" * 64}}, "hashes."),
        ({"hashes": {"a\\b": "0" * 64}}, "hashes."),
        ({"hashes": {"..": "0" * 64}}, "hashes."),
        ({"hashes": []}, "hashes: Input should be an object"),
        ({"scores": [[[]]]}, "scores: Input should be an object"),
        ({"hashes": {"a\nb\x1b[2J": "0" * 64}}, "hashes.a?b?[2J"),
        ({"training": {"a": [[[[[["\n"]]]]]]}, "steps": None}, "steps"),
    ],
)
def test_claims_out_of_bounds_are_refused(folder: Path, changes: dict[str, Any], word: str) -> None:
    data = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | changes
    (folder / MANIFEST).write_text(sealed_text(data), encoding="utf-8")
    refused(folder, word)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": ""}, "classes.0.name"),
        ({"color": [0, 0, 256]}, "classes.0.color.2: Input should be less than or equal to 255, not '256'"),
        ({"color": [0, 0]}, "classes.0.color.2: Field required"),
        ({"kind": "weapon"}, "kind"),
        ({"prompts": "grasper"}, "prompts"),
        ({"prompts": ["a\x00b"]}, "prompt"),
    ],
)
def test_claims_of_a_class_are_refused(folder: Path, change: dict[str, Any], word: str) -> None:
    classes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["classes"]
    reseal(folder, classes=[classes[0] | change, *classes[1:]])
    refused(folder, word)
    reseal(folder, classes=[classes[0], classes[0], *classes[2:]])
    refused(folder, "same name")
    reseal(folder, classes=[classes[1] | {"name": str(i)} for i in range(65)])
    refused(folder, "classes: Tuple should have at most 64 items")


def test_a_manifest_nested_too_deeply_or_too_large_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 100_000, encoding="utf-8")
    refused(folder, "not JSON")
    (folder / MANIFEST).write_text(" " * (5 << 20), encoding="utf-8")
    refused(folder, "bytes")


def npy(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    """A .npy file with a header of our choice."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


PICKLED = npy("(1,)", "'|O'", pickle.dumps([object]))
BAD_ARRAYS = [
    (npy("(1000000000000, 128)"), "1000000000000"),
    (npy("(-1, 128)"), "side"),
    (npy("(12, 128)", data=b"short"), "bytes follow"),
    (npy("(12, 128)", "'|S4'", b"x" * 6144), "numbers"),
    (PICKLED, "pickled"),
    (b"\x93NUMPY\x03\x00" + b"\xff" * 40, "format"),
    (b"", "no array"),
    (pickle.dumps([1, 2]), "no array"),
]


@pytest.mark.parametrize(("data", "word"), BAD_ARRAYS)
def test_embeddings_that_lie_about_themselves_are_refused(folder: Path, data: bytes, word: str) -> None:
    (folder / EMBEDDINGS).write_bytes(data)
    reseal(folder)
    refused(folder, word)


@pytest.mark.parametrize(("data", "word"), BAD_ARRAYS)
def test_a_reference_that_lies_about_itself_is_refused(folder: Path, data: bytes, word: str) -> None:
    with zipfile.ZipFile(folder / PROBE_FILE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("pictures", "base", "refined"):
            archive.writestr(f"{name}.npy", data)
    reseal(folder)
    with pytest.raises(BundleError) as caught:
        reference_of(open_bundle(folder))
    assert "\n" not in str(caught.value)
    assert word.replace("no array", "can't be read") in str(caught.value)


def test_a_reference_of_another_size_or_none_is_refused(folder: Path) -> None:
    (folder / PROBE_FILE).write_bytes(b"PK\x03\x04 not a zip")
    reseal(folder)
    with pytest.raises(BundleError, match="can't be read"):
        reference_of(open_bundle(folder))
    small = np.zeros((1, 8, 8, 3), np.uint8)
    np.savez(folder / PROBE_FILE, pictures=small, base=np.zeros((1, 12, 2, 2)), refined=np.zeros((1, 12, 2, 2)))
    reseal(folder)
    with pytest.raises(BundleError, match=r"shape \(1, 8, 8, 3\)"):
        reference_of(open_bundle(folder))


@given(st.binary(max_size=200))
def test_no_array_of_random_bytes_ends_in_another_error(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        for content in (data, b"\x93NUMPY\x01\x00" + data):
            path.write_bytes(content)
            assert_refused_in_a_line(read_array, path)


def outside(location: str, where: str) -> onnx.ModelProto:
    """A model one of whose tensors lies in another file: an initializer, a constant, or deep in a branch or a function."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    if where == "nowhere":
        plain = helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0, 3.0, 4.0])
        return helper.make_model(helper.make_graph([plain], "g", [], [info]))
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    if where == "initializer":
        return helper.make_model(
            helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [info], [tensor])
        )
    if where == "constant":
        return helper.make_model(helper.make_graph([constant], "g", [], [info]))
    if where == "function":
        body = helper.make_function("own", "F", [], ["y"], [constant], [helper.make_opsetid("", 18)])
        node = helper.make_node("F", [], ["y"], domain="own")
        return helper.make_model(helper.make_graph([node], "g", [], [info]), functions=[body])
    branch = helper.make_graph([constant], "b", [], [info])
    flag = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_model(helper.make_graph([flag, node], "g", [], [info]))


@pytest.mark.parametrize("where", ["initializer", "constant", "branch", "function"])
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "weights.bin", ""])
def test_weights_outside_the_bundle_are_refused(folder: Path, where: str, location: str) -> None:
    """Also a file inside the folder that the manifest does not list: its bytes are not those that were sealed."""
    (folder.parent / "secret.bin").write_bytes(b"0123456789abcdef")
    (folder / "weights.bin").write_bytes(b"0123456789abcdef")
    (folder / ENCODER).write_bytes(outside(location, where).SerializeToString())
    assert external_files(folder / ENCODER) == {location}
    reseal(folder)
    refused(folder, ENCODER, "not a file that the manifest lists")


def test_weights_in_a_listed_file_are_accepted(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"0123456789abcdef")
    (folder / ENCODER).write_bytes(outside("weights.bin", "initializer").SerializeToString())
    reseal(folder, "weights.bin")
    assert open_bundle(folder).path == folder


@pytest.mark.parametrize("name", ["encoder.onnx", "refiner.onnx", "text.onnx"])
def test_the_shipped_networks_hold_their_own_weights(name: str) -> None:
    assert external_files(open_bundle("small").path / name) == set()


@given(st.binary(min_size=1, max_size=300))
def test_no_random_bytes_end_the_scan_in_another_error(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.onnx"
        path.write_bytes(data)
        assert_refused_in_a_line(external_files, path)


@pytest.mark.parametrize("data", [b"", b"not an onnx file at all", bytes(1000)])
def test_a_network_that_is_no_network_is_refused(folder: Path, data: bytes) -> None:
    (folder / ENCODER).write_bytes(data)
    reseal(folder)
    with pytest.raises(CliprlError) as caught:
        load_engines(open_bundle(folder), precision="f32")
    assert "\n" not in str(caught.value)


def test_network_whose_grid_differs_from_the_manifest_is_refused(whole: Path) -> None:
    folder = whole
    reseal(folder, input=SIZE | {"stride": 8})
    with pytest.raises(BundleError, match="stride"):
        load_engines(open_bundle(folder), precision="f32")


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 5000, b'{"version": "1.0"}'])
def test_a_tokenizer_that_is_none_is_refused(folder: Path, data: bytes) -> None:
    (folder / TOKENIZER).write_bytes(data)
    reseal(folder)
    with pytest.raises(BundleError) as caught:
        TextEngine(open_bundle(folder))
    assert "\n" not in str(caught.value)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def test_pickles_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, checkpoint = tmp_path / "weights.pt", tmp_path / "checkpoint.pt"
    torch.save({"weight": torch.zeros(2), "evil": _Evil()}, weights)
    checkpoint.write_bytes(weights.read_bytes())
    with pytest.raises(UsageError, match="pickled objects"):
        read_weights(weights)
    with pytest.raises(CliprlError, match="pickled objects"):
        read_checkpoint(checkpoint)
    buffer = io.BytesIO()
    pickle.dump(_Evil(), buffer)
    weights.write_bytes(buffer.getvalue())
    with pytest.raises(UsageError) as caught:
        read_weights(weights)
    assert "\n" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("training", ['"\\ud800"', '{"a":' * 480 + "1" + "}" * 480], ids=["surrogate", "nested"])
def test_what_can_not_have_been_sealed_is_refused(folder: Path, training: str) -> None:
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    (folder / MANIFEST).write_text(
        text.replace('"training": {', f'"extra": {training}, "training": {{'), encoding="utf-8"
    )
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(folder)
