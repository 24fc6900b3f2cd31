"""`cliprl-engine` as a person meets it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from limits import file_size_limit

from cliprl.engines import Bundle, BundleError, CliprlError, EngineError, open_bundle, seal_bundle
from cliprl.engines.backends.engine import Probe
from cliprl.engines.backends.openvino import backend as openvino_backend
from cliprl.engines.bundle.bundle import INT8_ENCODER, INT8_WEIGHTS, RANGES_FILE
from cliprl.engines.bundle.reference_outputs import drawn_images
from cliprl.engines.cache.engine_cache import EngineCache
from cliprl.engines.cli import commands
from cliprl.engines.cli import main as cli
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.missing_package import missing_package_message
from cliprl.engines.onnx import nncf_int8
from cliprl.engines.selection import accuracy_gate


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cliprl-engine", *arguments])
    return run_app(cli.app, "cliprl-engine")


def test_devices_names_every_backend_and_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "devices") == 0
    lines = {line.split()[0]: line for line in capfd.readouterr().out.splitlines()[1:]}
    assert set(lines) == {"openvino", "tensorrt", "tensorrt_rtx", "torch"}
    assert lines["openvino"].split()[1] == "yes"
    for line in lines.values():
        assert line.split()[1] == "yes" or any(word in line for word in ("install", "update", "--", "see")), line


def test_square_brackets_of_a_remedy_are_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    remedy = "pip install 'cliprl[gpu]'"
    monkeypatch.setattr(commands, "probe", lambda name: Probe(name, False, remedy))
    assert call(monkeypatch, "devices") == 0
    assert remedy in capfd.readouterr().out


def test_what_is_built_is_kept_listed_and_deleted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], home: Path
) -> None:
    assert call(monkeypatch, "build", "--precision", "f32") == 0
    first = capfd.readouterr()
    assert "f32 is ready" in first.out
    assert "compiling" in first.err
    assert EngineCache().folder.is_relative_to(home)
    assert call(monkeypatch, "build", "--precision", "f32") == 0
    assert "compiling" not in capfd.readouterr().err
    assert call(monkeypatch, "cache") == 0
    listed = capfd.readouterr().out
    for word in ("small-openvino-f32", "accepted", "1 engines"):
        assert word in listed
    assert call(monkeypatch, "cache", "--clear") == 0
    assert "1 engines deleted" in capfd.readouterr().out
    assert EngineCache().entries() == []


def test_a_place_for_plans_without_their_target_is_misuse(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "build", "-o", "plans") == 2
    assert "give --target, or leave -o out" in capfd.readouterr().err


def test_verify_prints_a_row_for_each_network(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "verify", "--precision", "f32") == 0
    text = capfd.readouterr().out
    assert text.count("accepted") == 2
    for word in ("encoder", "refined", "100.00%", "cosine"):
        assert word in text
    table = text[text.index("IoU with the reference") :].splitlines()
    assert "openvino f32" in table[0]
    assert len(table) > 2
    assert all(line.split()[-1] == "1.000" for line in table[1:])


def test_verify_fails_where_nothing_passes(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(accuracy_gate, "MIN_COSINE", 1.1)
    assert call(monkeypatch, "verify", "--precision", "f32") == 1
    assert capfd.readouterr().out.count("refused") == 2


def test_inspect_shows_classes_networks_and_files(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "inspect", "small") == 0
    text = capfd.readouterr().out
    manifest = open_bundle("small").manifest
    for word in ("encoder", "refiner", "image uint8", "logits float32", *manifest.hashes, manifest.classes[1].name):
        assert word in text


def test_plans_are_written_for_gpus_that_are_not_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path / "plans"
    assert call(monkeypatch, "build", "--target", "sm89", "--precision", "f16", "-o", str(folder)) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["encoder.sm89.f16.plan", "refiner.sm89.f16.plan"]
    assert "MB" in capfd.readouterr().out


def test_a_bundle_is_quantised_on_frames_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where the CPU has no use for the int8 encoder that is told; a CPU that has one compares it."""
    pytest.importorskip("nncf")
    flags = list[str]()
    monkeypatch.setattr(openvino_backend, "_flags", lambda: flags)
    frames = []
    for index, image in enumerate(drawn_images(300, 400)):
        frames.append(str(tmp_path / f"{index}.png"))
        cv2.imwrite(frames[-1], image)
    folder = tmp_path / "int8"
    assert call(monkeypatch, "quantize", *frames, "-o", str(folder)) == 0
    assert "int8 needs a CPU" in capfd.readouterr().out
    assert {INT8_ENCODER, RANGES_FILE} <= set(open_bundle(folder).manifest.hashes)
    assert call(monkeypatch, "quantize", *frames, "-o", str(folder)) == 2
    flags.append("avx512_vnni")
    # Calibrated on drawn images it may fail the gate.
    assert call(monkeypatch, "verify", str(folder), "--precision", "int8") in (0, 1)
    assert "openvino  int8" in capfd.readouterr().out


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), EngineError("no calibration"), OSError(28, "No space left on device")]
)
def test_unfinished_copy_of_a_bundle_leaves_nothing(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(bundle: Bundle, images: object) -> Bundle:
        assert bundle.path.is_relative_to(tmp_path)
        raise error

    for name in ("add_ranges", "add_int8"):
        monkeypatch.setattr(nncf_int8, name, fail)
    frames = [tmp_path / f"{index}.png" for index in range(4)]
    for frame in frames:
        cv2.imwrite(str(frame), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises((KeyboardInterrupt, CliprlError)):
        nncf_int8.quantised_copy(open_bundle("small"), frames, tmp_path / "new" / "int8")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_copy_without_room_fails_in_one_line(tmp_path: Path) -> None:
    frames = [tmp_path / f"{index}.png" for index in range(4)]
    for frame in frames:
        cv2.imwrite(str(frame), np.zeros((8, 8, 3), np.uint8))
    with (
        file_size_limit(1_000_000),
        pytest.raises(EngineError, match=r"int8' can't be written \(File too large\): free"),
    ):
        nncf_int8.quantised_copy(open_bundle("small"), frames, tmp_path / "new" / "int8")
    assert list((tmp_path / "new").iterdir()) == []


def test_an_encoder_without_room_fails_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, shipped = tmp_path / "copy", open_bundle("small")
    shutil.copytree(shipped.path, folder)
    nncf = MagicMock(quantize=lambda model, *_, **__: model)
    monkeypatch.setattr(nncf_int8.no_telemetry, "nncf", lambda: nncf)
    images = np.zeros((4, shipped.manifest.height, shipped.manifest.width, 3), np.uint8)
    with (
        file_size_limit(1_000_000),
        pytest.raises(BundleError, match=r"encoder-int8\.xml' can't be written .*: free space"),
    ):
        nncf_int8.add_int8(open_bundle(folder), images)


def test_a_copy_inside_its_bundle_is_misuse(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    frames = [str(tmp_path / f"{index}.png") for index in range(4)]
    for frame in frames:
        cv2.imwrite(frame, np.zeros((8, 8, 3), np.uint8))
    inside = open_bundle("small").path / "copy"
    assert call(monkeypatch, "quantize", *frames, "-o", str(inside)) == 2
    assert "is inside the bundle that is copied" in capfd.readouterr().err
    assert not inside.exists()


def test_what_cannot_be_kept_is_not_called_ready(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    assert call(monkeypatch, "build", "--precision", "f32") == 0
    told = capfd.readouterr()
    assert "each start compiles it anew" in told.out
    assert "can't be kept" in told.err


def test_bundle_without_int8_encoder_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shipped = open_bundle("small")
    shutil.copytree(shipped.path, tmp_path / "plain", ignore=shutil.ignore_patterns(INT8_ENCODER, INT8_WEIGHTS))
    plain = seal_bundle(tmp_path / "plain", shipped.manifest, shipped.embeddings)
    assert call(monkeypatch, "verify", str(plain.path), "--precision", "int8") == 2
    error = capfd.readouterr().err
    assert len(error.strip().splitlines()) == 1
    for word in ("no int8 encoder", "cliprl-engine quantize", "f32"):
        assert word in error


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nonsense",), 2, ["nonsense", "--help"]),
        (("build", "giant"), 2, ["giant", "small"]),
        (("build", "--threads", "-2"), 2, ["--threads"]),
        (("build", "--device", "tpu"), 2, ["tpu", "cpu"]),
        (("build", "--precision", "f12"), 2, ["f12", "f32"]),
        (("build", "--precision", "f16"), 2, ["'f16' is arithmetic of a GPU", "f32"]),
        (("build", "--target", "sm86", "--precision", "fp8"), 2, ["fp8", "sm86", "sm89"]),
        (("quantize", "no.png", "-o", "x"), 2, ["no.png"]),
        (("cache", "--folder", "/dev/null"), 2, ["/dev/null", "folder"]),
        (("build", "--target", "sm9"), 2, ["sm9", "sm86"]),
        (("build", "--target", "sm86", "--precision", "f16", "-o", "/dev/null/x"), 2, ["/dev/null/x"]),
    ],
)
def test_misuse_is_one_line(
    arguments: tuple[str, ...],
    status: int,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if "--target" in arguments:
        pytest.importorskip("tensorrt_rtx")
    assert call(monkeypatch, *arguments) == status
    error = capfd.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("cliprl-engine: ")
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch", "train"), ("open_clip.factory", "train"), ("yaml", "train"), ("ray", "archive"), ("sdl2", "window")],
)
def test_a_package_that_is_missing_names_its_extra(module: str, extra: str) -> None:
    message = missing_package_message(ModuleNotFoundError(name=module))
    assert message.endswith(f"which is not installed: pip install 'cliprl[{extra}]'")


def test_only_modules_of_packages_can_be_installed() -> None:
    assert missing_package_message(ModuleNotFoundError(name="of_no_extra")).endswith("pip install of_no_extra")
    for module in ("cliprl.models.gone", "lzma", "_ctypes", ""):
        assert missing_package_message(ModuleNotFoundError(name=module)) == ""
