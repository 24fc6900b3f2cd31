"""Masks as CVAT XML 1.1, an element for each frame."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.sinks.json_text import xml_text
from cliprl.pipeline.sinks.labels.json_fields import image_name
from cliprl.pipeline.sinks.labels.text_sink import TextLabelSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.shapes.polygons import edge_polygons
from cliprl.pipeline.sinks.shapes.regions import Region
from cliprl.pipeline.sinks.shapes.run_lengths import cvat_runs
from cliprl.pipeline.sources.errors import redact


class CvatSink(TextLabelSink):
    """A file that CVAT imports as "CVAT 1.1", and datumaro as "cvat".

    `<image>` holds the shapes of a frame, by its name and, of a video, its index from 0, by which CVAT finds the frame of a video
    task. No `<track>` is written: datumaro reads no mask in it, and CVAT turns a track of one frame into a shape.
    The attribute "confidence" is the mean probability where the class won.
    """

    def head(self, frame: Frame) -> str:
        """Return the meta data: labels with their colors, and the size of the frames."""
        height, width = upright_size(frame)
        labels = "".join(
            f"<label><name>{escape(xml_text(spec.name))}</name><color>#{bytes(spec.color).hex()}</color><type>any</type><attributes>"
            "<attribute><name>confidence</name><mutable>False</mutable><input_type>number</input_type>"
            "<default_value>0</default_value><values>0\n1\n0.0001</values></attribute></attributes></label>\n"
            for spec in self.classes.values()
        )
        mode = "annotation" if frame.file else "interpolation"
        frames = self.spec.stream.frames
        size = "" if frames is None else f"<size>{frames}</size>"
        name = escape(xml_text(redact(self.spec.stream.name)))
        return (
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><name>{name}</name>'
            f"{size}<mode>{mode}</mode>\n<labels>\n{labels}</labels>\n<original_size><width>{width}</width>"
            f"<height>{height}</height></original_size></task></meta>\n"
        )

    def text(self, frame: Frame, found: list[Region] | None) -> str:
        """Return the element of a frame; nothing for a video's that was not segmented."""
        if found is None and frame.file is None:
            return ""
        height, width = upright_size(frame)
        shapes = "".join(
            f"<{shape} label={self._label(region)}{_SHAPE}>{_confidence(region)}</{shape.split()[0]}>\n"
            for region in found or ()
            for shape in self._shapes(region)
        )
        name = _quoted(image_name(frame, self.spec))
        return f'<image id="{frame.index}" name={name} width="{width}" height="{height}">\n{shapes}</image>\n'

    def tail(self) -> str:
        """Return the end of the document."""
        return "</annotations>\n"

    def _label(self, region: Region) -> str:
        return _quoted(self.classes[region.class_id].name)

    def _shapes(self, region: Region) -> list[str]:
        """Return the elements of a region, without the attributes that all shapes have."""
        if self.spec.style.polygons:
            return [
                f'polygon points="{";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist())}"'
                for ring in edge_polygons(region.mask)
            ]
        rows, columns = np.flatnonzero(region.mask.any(axis=1)), np.flatnonzero(region.mask.any(axis=0))
        part = region.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        text = ", ".join(map(str, cvat_runs(part)))
        box = f'left="{columns[0]}" top="{rows[0]}" width="{part.shape[1]}" height="{part.shape[0]}"'
        return [f'mask rle="{text}" {box}']


_SHAPE = ' occluded="0" source="auto" z_order="0"'
# A parser would read these in an attribute as spaces.
_BREAKS = str.maketrans({"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _quoted(text: str) -> str:
    """Return an attribute's value; `xml.sax.saxutils` imports a web client, which takes a twentieth of all imports."""
    return f'"{escape(xml_text(text)).translate(_BREAKS)}"'


def _confidence(region: Region) -> str:
    return f'<attribute name="confidence">{region.score:g}</attribute>'


@register_sink(suffixes=(".cvat.xml",), help="CVAT annotations", refers_to_frames=True)
def open_cvat(target: str, spec: OutputSpec, settings: EncoderSettings) -> CvatSink:
    """Open a CVAT file."""
    return CvatSink(Path(target), spec)
