"""Masks as Label Studio tasks with predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sinks.labels.json_fields import describe_frame, image_name
from cliprl.pipeline.sinks.labels.text_sink import TextLabelSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.shapes.polygons import edge_polygons
from cliprl.pipeline.sinks.shapes.regions import Region
from cliprl.pipeline.sinks.shapes.run_lengths import brush_runs
from cliprl.pipeline.sources.errors import redact

# Where Label Studio serves the files of a "local files" storage.
_LOCAL = "/data/local-files/?d="


class LabelStudioSink(TextLabelSink):
    """A list of tasks, one for each frame, that Label Studio imports.

    `data`: image (the frame's name; with exported frames its address in a local storage), the frame's index, pts and seconds,
    and the video. `predictions`: the masks as brush strokes, or polygons, for a labelling interface with an Image `image` and
    BrushLabels (PolygonLabels) `tag`. A frame that was not segmented has no prediction.
    """

    def head(self, frame: Frame) -> str:
        """Return the start of the list."""
        return "["

    def text(self, frame: Frame, found: list[Region] | None) -> str:
        """Return the task of a frame."""
        folder, name = self.spec.style.frames, image_name(frame, self.spec)
        data = describe_frame(frame) | {
            "image": f"{_LOCAL}{folder}/{name}" if folder else name,
            "video": None if frame.file else redact(self.spec.stream.name),
        }
        predictions: list[dict[str, Any]] = []
        if found is not None:
            score = min((region.score for region in found), default=1.0)
            result = [item for region in found for item in self._items(frame, region)]
            predictions.append({"model_version": "cliprl", "score": score, "result": result})
        return ("," if self.frames else "") + "\n" + json_text({"data": data, "predictions": predictions})

    def tail(self) -> str:
        """Return the end of the list."""
        return "\n]\n"

    def _items(self, frame: Frame, region: Region) -> list[dict[str, Any]]:
        height, width = upright_size(frame)
        kind = "polygonlabels" if self.spec.style.polygons else "brushlabels"
        values: list[dict[str, Any]] = [{"format": "rle", "rle": brush_runs(region.mask)}]
        if self.spec.style.polygons:
            scaled = [ring * (100 / width, 100 / height) for ring in edge_polygons(region.mask)]
            values = [{"points": ring.round(4).tolist(), "closed": True} for ring in scaled]
        return [
            {
                "id": f"{frame.index}-{region.class_id}-{number}",
                "type": kind,
                "from_name": "tag",
                "to_name": "image",
                "origin": "prediction",
                "score": region.score,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": value | {kind: [self.classes[region.class_id].name]},
            }
            for number, value in enumerate(values)
        ]


@register_sink(suffixes=(".labelstudio.json",), help="Label Studio tasks", refers_to_frames=True)
def open_label_studio(target: str, spec: OutputSpec, settings: EncoderSettings) -> LabelStudioSink:
    """Open a file of Label Studio tasks."""
    return LabelStudioSink(Path(target), spec)
