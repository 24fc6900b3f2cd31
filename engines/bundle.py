"""The engine bundle: the one thing that passes from training to the pipeline.

A folder with `manifest.json` beside `encoder.onnx`, `refiner.onnx` and `classes.npy` (text embeddings, float32 (K, E)).
The manifest lists the SHA-256 of every file, and a bundle whose files differ from it does not open.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.errors import BundleError, UsageError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ENCODER, REFINER, EMBEDDINGS = "encoder.onnx", "refiner.onnx", "classes.npy"
REQUIRED_FILES = (ENCODER, REFINER, EMBEDDINGS)
SHIPPED = Path(__file__).parent / "bundles"


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """One class: its name, its colour (R, G, B in 0..255), the prompts its embedding was made of, and its kind.

    `kind` is "background" (never painted), "tissue" or "instrument".
    """

    name: str
    color: tuple[int, int, int]
    kind: str
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself. `height` and `width` are the network's input size in pixels, `steps` its default T."""

    name: str
    classes: tuple[ClassSpec, ...]
    height: int
    width: int
    stride: int
    steps: int
    hashes: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of `from_json`."""
        classes = [
            {"name": c.name, "color": list(c.color), "kind": c.kind, "prompts": list(c.prompts)} for c in self.classes
        ]
        return {
            "format_version": self.format_version,
            "name": self.name,
            "classes": classes,
            "input": {
                "height": self.height,
                "width": self.width,
                "stride": self.stride,
                "layout": "NHWC",
                "dtype": "uint8",
                "color": "RGB",
            },
            "steps": self.steps,
            "hashes": dict(self.hashes),
            "training": dict(self.training),
            "scores": dict(self.scores),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Read the manifest's JSON.

        Raises BundleError for a newer format version or a missing or ill-typed field.
        """
        version = data.get("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(
                f"bundle format version {version!r} is not {FORMAT_VERSION}, the one this program reads: "
                "use the cliprl version that wrote the bundle, or write the bundle again"
            )
        try:
            classes = tuple(
                ClassSpec(str(c["name"]), _color(c["color"]), str(c["kind"]), tuple(c.get("prompts", ())))
                for c in data["classes"]
            )
            size = data["input"]
            return cls(
                name=str(data["name"]),
                classes=classes,
                height=int(size["height"]),
                width=int(size["width"]),
                stride=int(size["stride"]),
                steps=int(data["steps"]),
                hashes=dict(data["hashes"]),
                training=dict(data.get("training", {})),
                scores=dict(data.get("scores", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{MANIFEST} lacks or garbles a field ({error!r}): write the bundle again") from error


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in value)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle, its files checked against their hashes. `embeddings` is float32 (K, E), one row a class."""

    path: Path
    manifest: Manifest
    embeddings: NDArray[np.float32]

    @property
    def encoder(self) -> Path:
        """The image network: `image` uint8 (1, H, W, 3), `text` (K, E) -> `features` (1, D, h, w), `logits` (1, K, h, w)."""
        return self.path / ENCODER

    @property
    def refiner(self) -> Path:
        """The policy: `features`, `logits`, `base`, `prior` -> `refined` (1, K, h, w), `moved` () the share of cells changed.

        `refined` are the next step's logits: in ONNX an output can't bear an input's name.
        """
        return self.path / REFINER


def open_bundle(name_or_path: str | Path = "small") -> Bundle:
    """Open a shipped bundle by name, or any bundle by the path of its folder, after checking every file's hash.

    Raises UsageError where there is no such bundle, BundleError where it is incomplete, altered or of another format.
    """
    path = _locate(name_or_path)
    manifest = _read_manifest(path / MANIFEST)
    for name in REQUIRED_FILES:
        if name not in manifest.hashes:
            raise BundleError(f"{path / MANIFEST} lists no hash for {name}: write the bundle again")
    for name, expected in manifest.hashes.items():
        _check_hash(path / name, expected)
    embeddings = np.load(path / EMBEDDINGS, allow_pickle=False).astype(np.float32, copy=False)
    if embeddings.ndim != 2 or len(embeddings) != len(manifest.classes):
        raise BundleError(
            f"{path / EMBEDDINGS} has shape {embeddings.shape}, not ({len(manifest.classes)}, E): write the bundle again"
        )
    return Bundle(path, manifest, embeddings)


def _locate(name_or_path: str | Path) -> Path:
    shipped = SHIPPED / str(name_or_path)
    if str(name_or_path) and os.sep not in str(name_or_path) and (shipped / MANIFEST).is_file():
        return shipped
    path = Path(name_or_path)
    if not str(name_or_path) or not path.is_dir():
        names = sorted(p.parent.name for p in SHIPPED.glob(f"*/{MANIFEST}"))
        raise UsageError(
            f"no bundle '{name_or_path}': give the folder of a bundle, or one of the shipped: {', '.join(names) or 'none'}"
        )
    return path


def _read_manifest(path: Path) -> Manifest:
    if not path.is_file():
        raise BundleError(f"{path} is missing: a bundle is a folder with {MANIFEST} beside {', '.join(REQUIRED_FILES)}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}): copy or write the bundle again") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path} holds a {type(data).__name__}, not an object: copy or write the bundle again")
    return Manifest.from_json(data)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing though the manifest lists it: copy the whole bundle again")
    found = file_hash(path)
    if found != expected:
        raise BundleError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {str(expected)[:12]}…: "
            "it was altered or cut short; copy it again"
        )


def seal_bundle(path: Path, manifest: Manifest, embeddings: NDArray[np.float32]) -> Bundle:
    """Finish a bundle whose ONNX files already lie in `path`: write the embeddings, hash every file, write the manifest last.

    The manifest is written to a temporary name and renamed, so a bundle is either whole or does not open.
    """
    np.save(path / EMBEDDINGS, embeddings.astype(np.float32))
    files = sorted(p.name for p in path.iterdir() if p.is_file() and p.name != MANIFEST and not p.name.startswith("."))
    data = manifest.to_json() | {"hashes": {name: file_hash(path / name) for name in files}}
    partial = path / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path / MANIFEST)
    return open_bundle(path)
