"""The reference that compiled engines are held to: images, and what the ONNX files make of them in 32 bits.

It comes with the bundle as `probe.npz`. A bundle without one is held to images drawn here, of noise and shapes, with a
reference computed on the spot: enough to find an engine that is broken, not to find one that fails on real tissue.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.backends.engine import Engine
from cliprl.engines.backends.registry import compile_engine
from cliprl.engines.bundle.bundle import EMBEDDINGS, PROBE_FILE, Bundle, seal_bundle
from cliprl.engines.bundle.input_size import own_size, size_of, size_text
from cliprl.engines.bundle.validation import read_array, read_arrays
from cliprl.engines.errors import BundleError

ImageBatch = NDArray[np.uint8]
Logits = NDArray[np.float32]
# What a reference is called whose images are drawn here, and how many those are.
DRAWN_KEY = "drawn"
DRAWN_IMAGES = 4
# Share of the labels that a bundle keeps when its input size is changed; the small one keeps 0.96 at 512x640.
MIN_SCALED_AGREEMENT = 0.8


@dataclass(frozen=True, slots=True)
class Reference:
    """Images uint8 (N, H, W, 3), and their logits float32 (N, K, h, w) before and after refinement.

    `source` names where the images come from: a hash of the bundle's file, or "drawn".
    """

    images: ImageBatch
    base: Logits
    refined: Logits
    source: str


def reference_of(bundle: Bundle) -> Reference:
    """The bundle's own reference, or one drawn and computed here. Raises BundleError for a garbled file.

    For a bundle whose classes or whose input size were changed since it was opened only the images are its own: scaled to the
    size, and their logits computed here in 32 bits. Raises BundleError if these contradict the bundle's own too much.
    """
    path = bundle.path / PROBE_FILE
    if PROBE_FILE not in bundle.manifest.hashes:
        images = drawn_images(bundle.manifest.height, bundle.manifest.width)
        return Reference(images, *compute(bundle, images), DRAWN_KEY)
    file = read_arrays(path, ("pictures", "base", "refined"))
    stored = Reference(file["pictures"], file["base"], file["refined"], source_of(bundle))
    size = (*own_size(bundle), 3)
    if stored.images.shape[1:] != size or stored.images.dtype != np.uint8 or stored.base.ndim != 4:
        raise BundleError(
            f"{path} holds images of shape {stored.images.shape}, not (N, {', '.join(map(str, size))}) of uint8: "
            "write the bundle again"
        )
    changed = not np.array_equal(read_array(bundle.path / EMBEDDINGS), bundle.embeddings)
    if bundle.own_size:
        images = _scaled(stored.images, size_of(bundle))
        made = Reference(images, *compute(bundle, images), stored.source)
        if not changed:
            _check_scaled(bundle, made.base, stored.base)
        return made
    if changed:
        return Reference(stored.images, *compute(bundle, stored.images), stored.source)
    grid = (len(stored.images), len(bundle.embeddings))
    if stored.base.shape[:2] != grid or stored.refined.shape != stored.base.shape:
        raise BundleError(f"{path} holds logits of shape {stored.base.shape}, not {grid} first: write the bundle again")
    return stored


def _scaled(images: ImageBatch, size: tuple[int, int]) -> ImageBatch:
    import cv2

    smaller = size[0] * size[1] < images.shape[1] * images.shape[2]
    way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.stack([cv2.resize(image, size[::-1], interpolation=way) for image in images]).astype(np.uint8)


def _check_scaled(bundle: Bundle, found: Logits, expected: Logits) -> None:
    """Raise BundleError if the labels of the scaled images are not mostly those that the bundle has at its own size.

    A graph may take another size and compute nonsense, as one whose positions are fixed.
    """
    rows, columns = (np.arange(n) * m // n for n, m in zip(found.shape[2:], expected.shape[2:], strict=True))
    truth = expected.argmax(1)[:, rows[:, None], columns]
    agreement = float((found.argmax(1) == truth).mean())
    if agreement < MIN_SCALED_AGREEMENT:
        size, own = size_text(size_of(bundle)), size_text(own_size(bundle))
        raise BundleError(
            f"bundle '{bundle.manifest.name}' at input size {size} keeps {agreement:.0%} of the labels that it gives at its own "
            f"{own}, not {MIN_SCALED_AGREEMENT:.0%}: choose a size nearer to that"
        )


def add_reference(bundle: Bundle, images: ImageBatch) -> Bundle:
    """Give a bundle its own reference: `images` uint8 (N, H, W, 3) at the network's size, and what it makes of them now.

    A handful of images that show every class is enough. Any reference it had is replaced, and the bundle sealed again.
    """
    base, refined = compute(bundle, images)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, pictures=images, base=base, refined=refined)
    return seal_bundle(bundle.path, bundle.manifest, bundle.embeddings, {PROBE_FILE: arrays.getvalue()})


def source_of(bundle: Bundle) -> str:
    """What `reference_of` would call the source, without computing anything."""
    return bundle.manifest.hashes.get(PROBE_FILE, DRAWN_KEY)


def compute(bundle: Bundle, images: ImageBatch) -> tuple[Logits, Logits]:
    """Logits before and after refinement, by OpenVINO in 32 bits on this machine's CPU."""
    encoder = compile_engine(bundle.encoder, precision="f32", shapes=encoder_shapes(bundle))
    refiner = compile_engine(bundle.refiner, precision="f32", shapes=refiner_shapes(bundle, encoder))
    return predict(encoder, refiner, images, bundle)


def predict(encoder: Engine, refiner: Engine, images: ImageBatch, bundle: Bundle) -> tuple[Logits, Logits]:
    """Run both networks over images, every refinement step taken, each image its own prior."""
    base, refined = [], []
    for features, logits in _encoded(encoder, images, bundle):
        state = {"features": features, "base": logits, "prior": logits, "text": bundle.embeddings}
        base.append(logits[0])
        for _ in range(bundle.manifest.steps):
            logits = _host(refiner.run(state | {"logits": logits})["refined"])
        refined.append(logits[0])
    return np.stack(base), np.stack(refined)


def _encoded(encoder: Engine, images: ImageBatch, bundle: Bundle) -> Iterator[tuple[Logits, Logits]]:
    """Features and logits, each (1, …), of every image, by an encoder of any batch; the last images fill its last one."""
    count = max(encoder.inputs["image"].shape[0], 1)
    for start in range(0, len(images), count):
        own = images[start : start + count]
        filled = np.concatenate([own, np.repeat(own[-1:], count - len(own), axis=0)])
        outputs = encoder.run({"image": filled, "text": bundle.embeddings})
        features, logits = (_host(outputs[name]) for name in ("features", "logits"))
        yield from ((features[i : i + 1], logits[i : i + 1]) for i in range(len(own)))


def encoder_shapes(bundle: Bundle, batch: int = 1) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the encoder's inputs for the bundle's input size and classes, and `batch` images at a time."""
    return {"image": (batch, bundle.manifest.height, bundle.manifest.width, 3), "text": bundle.embeddings.shape}


def refiner_shapes(bundle: Bundle, encoder: Engine) -> Mapping[str, tuple[int, ...]]:
    """The refiner's inputs for the outputs of a compiled encoder."""
    manifest = bundle.manifest
    grid = (1, len(bundle.embeddings), manifest.height // manifest.stride, manifest.width // manifest.stride)
    logits = {"logits": grid, "base": grid, "prior": grid}
    return {"features": (1, *encoder.outputs["features"].shape[1:]), **logits, "text": bundle.embeddings.shape}


def drawn_images(height: int, width: int) -> ImageBatch:
    """Seeded images: smooth colors under ellipses and bars with noise, from calm to crowded."""
    rng = np.random.default_rng(20)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    images = [_drawn(rng, rows / height, columns / width, shapes=6 * (i + 1)) for i in range(DRAWN_IMAGES)]
    return np.stack(images)


def _drawn(rng: np.random.Generator, rows: Any, columns: Any, shapes: int) -> ImageBatch:
    image = np.stack([_waves(rng, rows, columns) for _ in range(3)], axis=-1)
    for _ in range(shapes):
        y, x, angle = rng.uniform(0, 1, 3)
        long, short = rng.uniform(0.05, 0.6), rng.uniform(0.02, 0.15)
        along = (columns - x) * np.cos(angle * np.pi) + (rows - y) * np.sin(angle * np.pi)
        across = (rows - y) * np.cos(angle * np.pi) - (columns - x) * np.sin(angle * np.pi)
        inside = (along / long) ** 2 + (across / short) ** 2 < 1
        image[inside] = rng.uniform(0, 255, 3)
    noisy = image + rng.normal(0, 6, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _waves(rng: np.random.Generator, rows: Any, columns: Any) -> Any:
    phase, y, x = rng.uniform(0, 6), rng.uniform(1, 8), rng.uniform(1, 8)
    return 128 + 80 * np.sin(phase + y * rows + x * columns)


def _host(array: Any) -> Any:
    """A float32 copy in main memory of a NumPy array or of a GPU's tensor."""
    return np.array(array.cpu() if hasattr(array, "cpu") else array, np.float32)
