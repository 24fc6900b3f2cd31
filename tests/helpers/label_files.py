"""Label files of labelling tools, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from cliprl.pipeline.sinks.shapes.run_lengths import brush_runs

SIZE = (40, 60)
SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]


def square() -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros(SIZE, bool)
    mask[5:25, 10:30] = True
    return mask


def coco(annotations: Sequence[dict[str, Any]], names: Sequence[str] = ("liver", "hook"), **image: Any) -> str:
    one = {"id": 7, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]} | image
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    rest = [{"id": i, "image_id": 7, "category_id": 1, "iscrowd": 0} | a for i, a in enumerate(annotations, 1)]
    return json.dumps({"images": [one], "categories": categories, "annotations": rest})


def cvat(inside: str, size: tuple[int, int] = SIZE) -> str:
    labels = "<labels><label><name>liver</name></label><label><name>hook</name></label></labels>"
    return (
        f"<annotations><meta><task>{labels}<original_size><width>{size[1]}</width><height>{size[0]}</height></original_size>"
        f"</task></meta>{inside}</annotations>"
    )


def image_element(inside: str, name: str = "a.png", width: int = SIZE[1]) -> str:
    return cvat(f'<image id="0" name="{name}" width="{width}" height="{SIZE[0]}">{inside}</image>')


def tasks(*results: dict[str, Any], image: str = "/data/upload/1/0a1b2c3d-a.png", key: str = "annotations") -> str:
    return json.dumps([{"id": 12, "data": {"image": image}, key: [{"result": results}]}])


def brush(**fields: Any) -> dict[str, Any]:
    value = {"format": "rle", "rle": brush_runs(square()), "brushlabels": ["hook"]}
    return {"type": "brushlabels", "original_width": SIZE[1], "original_height": SIZE[0], "value": value} | fields


def points(*values: float, label: str = "hook") -> dict[str, Any]:
    value = {"points": np.array(values).reshape(-1, 2).tolist(), "polygonlabels": [label]}
    return {"type": "polygonlabels", "original_width": SIZE[1], "original_height": SIZE[0], "value": value}


def compressed() -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(square().view(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}
