"""Read images, videos and masks, with errors that name the file, the bad value and its pixel count."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.sample import Image
from cliprl.pipeline.sources.decoding.nv12_writer import plane_array

Color = tuple[int, int, int]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# The first bytes of a JPEG, and of a WebP that is compressed with loss.
_LOSSY = re.compile(rb"\xff\xd8\xff|RIFF.{4}WEBPVP8 ", re.DOTALL)
# The most bytes of a video's decoded frames.
_MOST_BYTES = 4 << 30
# OpenCV's own lines about a damaged file say nothing that the error does not.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# NumPy parses the header of each array by `ast`, which fails at random in Python 3.11 where two threads do so at once.
_HEADERS = threading.Lock()


def files_below(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES, *, whole: bool = True) -> Iterator[Path]:
    """Yield the files of a folder and its sub-folders whose suffix is one of those, in any case, also behind links.

    Hidden files and folders are left out: there, systems put copies and previews. `whole`: raise CliprlError for a folder that
    can't be read, whose files would be missing without notice.
    """

    def refuse(error: OSError) -> None:
        # lost+found is the system's, in the first folder of a disk.
        if whole and not isinstance(error, FileNotFoundError) and Path(error.filename).name != "lost+found":
            raise CliprlError(
                f"'{error.filename}' can't be read ({error.strerror}): give it read permission, or give other folders"
            )

    above = {str(folder): {os.path.realpath(folder)}}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = above.pop(place)
        links = {name: os.path.realpath(os.path.join(place, name)) for name in folders if not name.startswith(".")}
        folders[:] = [name for name, real in links.items() if real not in here]  # a link may lead back
        above |= {os.path.join(place, name): {*here, links[name]} for name in folders}
        paths = (Path(place, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.suffix.lower() in suffixes)


def read_npz(path: Path, names: Iterable[str]) -> list[NDArray[Any]]:
    """Read arrays of a .npz file by name; threads take turns. Raises what `numpy.load` raises."""
    with _HEADERS, np.load(path) as data:
        return [data[name] for name in names]


def read_image(path: Path) -> Image:
    """Read an image as a viewer displays it, turned by its EXIF, as uint8 (H, W, 3) RGB.

    Raises CliprlError for a missing or unreadable file.
    """
    image = _decoded(path, cv2.IMREAD_COLOR)
    if image is None:
        raise CliprlError(f"{path} can't be read as an image: copy it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _decoded(path: Path, flags: int) -> cv2.typing.MatLike | None:
    """Decode an image file; None if that fails. `cv2.imread` ends the process for a name that is not UTF-8.

    Raises CliprlError for a larger image than OpenCV takes.
    """
    try:
        # A pipe of that name would never end.
        content = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    except OSError:
        return None
    try:
        return cv2.imdecode(content, flags) if len(content) else None
    except cv2.error as error:
        raise CliprlError(f"{path} has more than 2^30 pixels, or 2^20 on a side: make it smaller") from error


def read_video(path: Path, every: int = 1) -> list[Image]:
    """Read every `every`-th frame of a video, uint8 (H, W, 3) RGB.

    Raises CliprlError for a file that cannot be decoded, UsageError for more frames than 4 GiB hold.
    """
    found: list[Image] = []
    try:
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index % every == 0:
                    found.append(frame.to_ndarray(format="rgb24").astype(np.uint8))
                if len(found) * found[0].nbytes > _MOST_BYTES:
                    length = container.streams.video[0].frames or 2 * index
                    fewer = math.ceil(length * found[0].nbytes / _MOST_BYTES)
                    raise UsageError(f"{path} has more frames than fit into memory: take fewer, with every={fewer}")
        return found
    except (OSError, IndexError, av.FFmpegError) as error:
        raise CliprlError(f"{path} can't be read as video ({error}): copy it again") from error


def read_mask(path: Path) -> Image:
    """Read a mask as it is stored: uint8 (H, W) of values, or (H, W, 3) RGB without alpha.

    Raises CliprlError for a missing or unreadable file, lossy compression, or one without 8 bits a channel.
    """
    mask = _decoded(path, cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise CliprlError(f"{path} can't be read as a mask: copy it again")
    with path.open("rb") as file:
        if _LOSSY.match(file.read(16)):
            raise CliprlError(
                f"{path} is a JPEG or a lossy WebP, which changes the values of a mask: write it again as PNG, from the source"
            )
    if mask.dtype != np.uint8:
        raise CliprlError(f"{path} has {8 * mask.dtype.itemsize} bits a channel: masks have 8; write it with 8")
    return mask.astype(np.uint8) if mask.ndim == 2 else np.ascontiguousarray(mask[..., 2::-1]).astype(np.uint8)


def read_palette_mask(path: Path) -> tuple[Image, Image | None]:
    """Read a mask as `read_mask` does, but of one with a palette the indices (H, W), and the palette uint8 (256, 3) RGB."""
    image = None
    with suppress(OSError, StopIteration, av.FFmpegError), av.open(str(path)) as container:
        image = next(container.decode(video=0))
    if image is None or image.format.name != "pal8":
        return read_mask(path), None
    return plane_array(image, 0).copy(), image.to_ndarray()[1][:, 1:]  # colors are ARGB


def labels_from_values(mask: Image, table: Mapping[int, int], path: Path) -> Image:
    """Return labels (H, W) of a mask of values, by a table from value to label.

    A mask with equal channels counts as a mask of values. Raises CliprlError for a value that the table lacks.
    """
    if mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            raise CliprlError(f"{path} is in color: this mask holds one gray value a class")
        mask = np.ascontiguousarray(mask[..., 0])
    counts = np.bincount(mask.ravel(), minlength=256)
    unknown = [value for value in np.flatnonzero(counts).tolist() if value not in table]
    if unknown:
        _refuse(path, "value", {value: int(counts[value]) for value in unknown}, ", ".join(map(str, sorted(table))))
    lookup = np.zeros(256, np.uint8)
    lookup[list(table)] = list(table.values())
    return lookup[mask]


def labels_from_colors(mask: Image, palette: Mapping[Color, int], path: Path) -> Image:
    """Return labels (H, W) of a mask (H, W, 3) RGB, by a table from color to label. A mask of one channel counts as gray.

    Raises CliprlError for a color that the table lacks.
    """
    if mask.ndim == 2:
        mask = cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB).astype(np.uint8)
    labels, known = np.zeros(mask.shape[:2], np.uint8), np.zeros(mask.shape[:2], bool)
    for color, label in palette.items():
        here = cv2.inRange(mask, np.array(color), np.array(color)) > 0
        labels[here] = label
        known |= here
    if not known.all():
        colors, counts = np.unique(mask[~known], axis=0, return_counts=True)
        found = {tuple(c): n for c, n in zip(colors.tolist(), counts.tolist(), strict=True)}
        _refuse(path, "color", found, ", ".join(_text(c) for c in palette))
    return labels


def _refuse(path: Path, kind: str, found: Mapping[Any, int], known: str) -> None:
    """Raise CliprlError for the most frequent unknown value or color, with its count and the number of others."""
    worst, count = max(found.items(), key=lambda item: item[1])
    others = f" (and {len(found) - 1} other unknown {kind}s)" if len(found) > 1 else ""
    raise CliprlError(
        f"{path} holds {kind} {_text(worst)}, which is no class, on {count} pixels{others}: it may hold {known}"
    )


def _text(value: int | Color) -> str:
    return str(value) if isinstance(value, int) else f"({', '.join(map(str, value))})"


def check_size(image: Image, labels: NDArray[np.uint8], image_path: Path, mask_path: Path) -> None:
    """Raise CliprlError if an image (H, W, 3) and its mask (H, W) differ in size."""
    if image.shape[:2] != labels.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, labels.shape)]
        raise CliprlError(
            f"{image_path} is {sizes[0]} and its mask {mask_path} is {sizes[1]}: they must be of one size; copy both again"
        )
