"""Bounds on the values of an untrusted bundle, checked before anything is allocated, decoded or opened."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cliprl.engines.errors import BundleError, reason_of
from cliprl.engines.onnx.external_data import external_files

# The largest side of a network input in pixels, the most refinement steps, tokens a prompt, templates, characters a name.
MAX_SIDE, MAX_STEPS, MAX_CONTEXT, MAX_TEMPLATES, MAX_TEXT = 4096, 64, 1024, 64, 200
# The most classes that a bundle's networks can take.
MAX_CLASSES = 64
# The longest class embedding, and the most elements of an array that comes with a bundle (256 MiB in float32).
MAX_EMBEDDING, MAX_ELEMENTS = 8192, 1 << 26


def within(value: int, least: int, most: int, what: str) -> int:
    """`value`, if it lies in `least`..`most`. Raises ValueError that names `what`, the value and the bounds."""
    if not least <= value <= most:
        raise ValueError(f"{what} {value} is not in {least}..{most}")
    return value


def integer(value: Any, what: str) -> int:
    """A JSON integer as it is. Raises ValueError for a boolean, a fraction or another type."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} {str(value)[:40]!r} is not an integer")
    return value


def check_external_data(folder: Path, names: Iterable[str], hashed: Iterable[str]) -> None:
    """Refuse ONNX files whose tensors lie in a file that the manifest does not list, such as one outside the bundle.

    Raises BundleError.
    """
    listed = set(hashed)
    for name in names:
        for location in sorted(external_files(folder / name)):
            if location not in listed:
                raise BundleError(
                    f"{folder / name} wants its weights from '{location[:120]}', which is not a file that the manifest "
                    "lists: export the model with its weights inside"
                )


def read_array(path: Path) -> NDArray[Any]:
    """Read a .npy file of numbers whose stated size is the file's.

    Raises BundleError for pickled objects, for a size out of bounds and for a file that is cut short.
    """
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size)
    except (OSError, ValueError, EOFError, TypeError, SyntaxError) as error:
        raise BundleError(f"{path} is no array of numbers ({_short(error)}): copy or write the bundle again") from error


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays `names` of a .npz file, under the same rules as `read_array`; what else it holds is not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, f"{name}.npy") for name in names}
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} can't be read ({_short(error)}): copy or write the bundle again") from error


def _member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(name) as file:
        return _array(file, archive.getinfo(name).file_size)


def _array(file: IO[bytes], size: int) -> NDArray[Any]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version} of NumPy files is not read here")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which can run code when they are read")
    if dtype.kind not in "fiub":
        raise ValueError(f"its elements are of type {dtype}, not numbers")
    count = 1
    for side in shape:
        count *= within(integer(side, "side"), 0, MAX_ELEMENTS, "side")
    within(count, 0, MAX_ELEMENTS, "number of elements")
    if size - file.tell() != count * dtype.itemsize:
        raise ValueError(f"{size - file.tell()} bytes follow where shape {shape} needs {count * dtype.itemsize}")
    data = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return data.reshape(shape, order="F" if fortran else "C").copy()


def _short(error: Exception) -> str:
    return reason_of(error)[:160]
