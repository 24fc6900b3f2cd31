"""Recognize the files of labelling tools by their content, for paths without a kind and for error messages."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliprl.engines import CliprlError

_NO_BOXES = "export masks or polygons, not boxes alone"
_TO_COCO = "convert it to COCO with masks or polygons, and give coco:FILE"
# Bytes by which a file that is no JSON is recognized.
_HEAD = 4096


@dataclass(frozen=True, slots=True)
class LabelForm:
    """A form of files: the kind of data set that reads it ("" for none), what it is, and what to do about it."""

    kind: str
    text: str
    remedy: str


def _readable(kind: str, text: str) -> LabelForm:
    return LabelForm(kind, text, f"give {kind}:FILE")


# By the first bytes that are no white space; the first that fits counts.
_BY_BYTES: tuple[tuple[Callable[[bytes], bool], LabelForm], ...] = (
    (lambda head: head.startswith(b"PK\x03\x04"), LabelForm("", "a ZIP archive", "unpack it, and give what it holds")),
    (
        lambda head: head.startswith(b"\x1f\x8b"),
        LabelForm("", "a compressed file", "unpack it, and give what it holds"),
    ),
    (lambda head: head.startswith(b"<") and b"<annotations" in head, _readable("cvat", "a file of CVAT")),
    (lambda head: head.startswith(b"<") and b"<annotation" in head, LabelForm("", "boxes of Pascal VOC", _NO_BOXES)),
)
_BY_KEYS: tuple[tuple[set[str], LabelForm], ...] = (
    ({"images", "annotations", "categories"}, _readable("coco", "a COCO file")),
    ({"data", "annotations"}, _readable("labelstudio", "Label Studio tasks")),
    ({"data", "predictions"}, _readable("labelstudio", "Label Studio tasks")),
    ({"shapes", "imagePath"}, LabelForm("", "a file of LabelMe", _TO_COCO)),
    ({"_via_img_metadata"}, LabelForm("", "a project of VIA", _TO_COCO)),
    ({"image_id", "segmentation"}, LabelForm("", "results without images in the form of COCO", _TO_COCO)),
    ({"items", "categories"}, LabelForm("", "a file of Datumaro", _TO_COCO)),
)


def label_form(path: Path) -> LabelForm | None:
    """Return the form of a file; None for one that is not recognized or can't be read."""
    try:
        head = path.open("rb").read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
        for fits, form in _BY_BYTES:
            if fits(head):
                return form
        data: Any = json.loads(path.read_text(encoding="utf-8-sig")) if head[:1] in (b"{", b"[") else None
    except (OSError, ValueError, RecursionError):
        return None
    first = data[0] if isinstance(data, list) and data else data
    return next((form for keys, form in _BY_KEYS if isinstance(first, dict) and keys <= first.keys()), None)


def form_error(path: Path, wanted: str, rule: str, kind: str) -> CliprlError:
    """Return the error for a file that is not `wanted`: with its form, if that is recognized, else with the `rule`."""
    form = label_form(path)
    if form is None or form.kind == kind:
        return CliprlError(f"{path} is no {wanted}{rule}")
    return CliprlError(f"{path} is no {wanted} but {form.text}: {form.remedy.replace('FILE', str(path))}")


def read_label_text(path: Path, wanted: str, kind: str) -> str:
    """Read a label file in UTF-8, or in UTF-16 with a byte order mark. Raises CliprlError if it can't be read as text."""
    try:
        data = path.read_bytes()
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise form_error(path, wanted, f": it can't be read as text ({error}); export it again", kind) from error
