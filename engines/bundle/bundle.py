"""The engine bundle: the one thing that passes from training to the pipeline.

A folder with `manifest.json` beside `encoder.onnx`, `refiner.onnx` and `classes.npy` (text embeddings, float32 (K, E)), and
`text.onnx` with `tokenizer.json` where prompts may change at run time. The manifest lists the SHA-256 of every file and
is sealed itself: a bundle of which any byte was changed does not open.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.bundle.confidence import CONFIDENCE_FILE, ConfidenceSpec, read_confidence
from cliprl.engines.bundle.manifest import MANIFEST, Manifest, sealed_text
from cliprl.engines.bundle.manifest_file import read_manifest
from cliprl.engines.bundle.validation import MAX_EMBEDDING, check_external_data, read_array
from cliprl.engines.cpu_count import available_cpus
from cliprl.engines.errors import BundleError, UsageError, explained

ENCODER, REFINER, EMBEDDINGS, PROBE_FILE = "encoder.onnx", "refiner.onnx", "classes.npy", "probe.npz"
# The name of the encoder's image input.
IMAGE = "image"
TEXT, TOKENIZER = "text.onnx", "tokenizer.json"
# In OpenVINO's own format; a bundle may have it or not.
INT8_ENCODER, INT8_WEIGHTS = "encoder-int8.xml", "encoder-int8.bin"
# The ranges of the encoder's activations, for eight bits on a GPU; a bundle may have it or not.
RANGES_FILE = "encoder-ranges.json"
# The head that corrects a mask by points and boxes; a bundle may have it or not.
PROMPT_HEAD = "prompt.onnx"
# A description for people; it is not hashed and may change.
MODEL_CARD = "README.md"
REQUIRED_FILES = (ENCODER, REFINER, EMBEDDINGS)
SHIPPED = Path(__file__).parents[1] / "bundles"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle, its files checked against their hashes. `embeddings` is float32 (K, E), one row a class.

    `confidence` is None for a bundle without a fitted one, and for classes that it was not fitted to. `own_size`: the input size
    (height, width) of its files, where `manifest` has another, chosen at run time (see `with_input_size`).
    """

    path: Path
    manifest: Manifest
    embeddings: NDArray[np.float32]
    confidence: ConfidenceSpec | None = None
    own_size: tuple[int, int] | None = None

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
    if not (path / MANIFEST).is_file():
        inside = next((f"; '{place.parent}' is one" for place in sorted(path.glob(f"*/{MANIFEST}"))), "")
        raise BundleError(
            f"{path / MANIFEST} is missing: a bundle is a folder with {MANIFEST} beside {', '.join(REQUIRED_FILES)}{inside}"
        )
    manifest = read_manifest(path / MANIFEST)
    for name in (*REQUIRED_FILES, *((TEXT, TOKENIZER) if manifest.text else ())):
        if name not in manifest.hashes:
            raise BundleError(f"{path / MANIFEST} lists no hash for {name}: write the bundle again")
    with ThreadPoolExecutor(available_cpus()) as pool:
        checks = pool.map(check_hash, [path / name for name in manifest.hashes], manifest.hashes.values())
        try:
            return _read(path, manifest)
        finally:
            list(checks)  # a file that was altered is reported before what is wrong in it


def _read(path: Path, manifest: Manifest) -> Bundle:
    check_external_data(path, (name for name in manifest.hashes if name.endswith(".onnx")), manifest.hashes)
    embeddings = read_array(path / EMBEDDINGS).astype(np.float32, copy=False)
    if embeddings.ndim != 2 or len(embeddings) != len(manifest.classes) or embeddings.shape[1] > MAX_EMBEDDING:
        raise BundleError(
            f"{path / EMBEDDINGS} has shape {embeddings.shape}, not ({len(manifest.classes)}, E): write the bundle again"
        )
    classes = len(manifest.classes)
    fitted = read_confidence(path / CONFIDENCE_FILE, classes) if CONFIDENCE_FILE in manifest.hashes else None
    return Bundle(path, manifest, embeddings, fitted)


def naming_parts(bundle: Bundle | str | Path) -> Bundle:
    """Return a bundle, opened if it is not, whose masks have the likeliest class everywhere, and no "instrument"."""
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    return replace(opened, manifest=replace(opened.manifest, part_share=None))


def _locate(name_or_path: str | Path) -> Path:
    name_or_path = os.fsdecode(name_or_path)
    shipped = SHIPPED / name_or_path
    if name_or_path and os.sep not in name_or_path and (shipped / MANIFEST).is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        raise UsageError(
            f"'{path}' is a file, and a bundle is a folder: unpack it if it is an archive, and give the folder"
        )
    if not name_or_path or not path.is_dir():
        names = sorted(p.parent.name for p in SHIPPED.glob(f"*/{MANIFEST}"))
        raise UsageError(
            f"no bundle '{name_or_path}': give the folder of a bundle, or one of the shipped: {', '.join(names) or 'none'}"
        )
    return path


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(path: Path, expected: str) -> None:
    """Raise BundleError if a file is missing, can't be read, or has another SHA-256 than the manifest lists."""
    if not path.is_file():
        raise BundleError(f"{path} is missing though the manifest lists it: copy the whole bundle again")
    with explained(f"{path} can't be read", "mend its permissions or copy it again", BundleError):
        found = file_hash(path)
    if found != expected:
        raise BundleError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {str(expected)[:12]}…: "
            "it was altered or cut short; copy it again"
        )


def seal_bundle(
    path: Path, manifest: Manifest, embeddings: NDArray[np.float32], files: Mapping[str, bytes] | None = None
) -> Bundle:
    """Finish a bundle whose ONNX files already lie in `path`: write the embeddings, hash every file, write the manifest last.

    `files` are contents of further files by name. All that is new is written to temporary names first, then renamed: a full disk
    or a manifest that would not be read again leaves the bundle that was there. Raises BundleError for either.
    """
    array = io.BytesIO()
    np.save(array, embeddings.astype(np.float32))
    contents = {**(files or {}), EMBEDDINGS: array.getvalue()}
    names = sorted({*contents, *(p.name for p in path.iterdir() if p.is_file() and _is_hashed(p.name))})
    hashes = {name: _hash_of(contents[name]) if name in contents else file_hash(path / name) for name in names}
    data = manifest.to_json() | {"hashes": hashes}
    Manifest.from_json(data)
    contents[MANIFEST] = sealed_text(data).encode()
    partials = {name: path / f".{name}.partial" for name in contents}
    try:
        for name, partial in partials.items():
            partial.write_bytes(contents[name])
        for name, partial in partials.items():
            partial.replace(path / name)
    except OSError as error:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        raise BundleError(f"'{path}' can't be written ({error.strerror}): free space, or give another place") from error
    return open_bundle(path)


def _hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_hashed(name: str) -> bool:
    """Whether the manifest lists a file: all but itself, hidden files, and the model card."""
    return name not in (MANIFEST, MODEL_CARD) and not name.startswith(".")
