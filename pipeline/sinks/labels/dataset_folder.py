"""A folder of frames and masks that `cliprl-train` and `cliprl-eval` read as `folder:`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sinks.labels.folder_sink import FolderSink, replaced_folder
from cliprl.pipeline.sinks.labels.frame_labels import check_classes, frame_labels
from cliprl.pipeline.sinks.labels.indexed_png import encode_png
from cliprl.pipeline.sinks.labels.json_fields import exported_name
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink


class DatasetFolderSink(FolderSink):
    """`images/NAME.png` without the overlay, `masks/NAME.png` with class ids as values, and `classes.toml`.

    Frames that were not segmented are left out.
    """

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Make the partial folder. Raises UsageError if `target` can't become a data set."""
        super().__init__(target, spec)
        self._converter, self._palette = FrameConverter(), [one.color for one in spec.classes]

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        check_classes(self.target, self.spec, segmentation)
        if segmentation is None:
            return
        if "classes.toml" not in self._masks:
            self._masks.add("classes.toml", classes_toml(self.spec.classes).encode())
        name = exported_name(frame, self.spec)
        self._masks.add(f"images/{name}", self._converter.png(frame))
        self._masks.add(f"masks/{name}", encode_png(frame_labels(frame, segmentation), self._palette))


def classes_toml(classes: Sequence[ClassSpec]) -> str:
    """Return the classes, the background first, with their values in masks; the name is the prompt of a class without one."""
    entries = sorted(enumerate(classes), key=lambda item: item[1].kind != "background")
    return "".join(
        f"[[classes]]\nname = {_quoted(spec.name)}\nkind = {_quoted(_kind(spec))}\ncolor = {list(spec.color)}\nvalue = {i}\n"
        f"prompts = [{', '.join(map(_quoted, spec.prompts or (spec.name,)))}]\n\n"
        for i, spec in entries
    )


def _kind(spec: ClassSpec) -> str:
    """Return the kind in a data set: a class that was named by a prompt counts as an instrument."""
    return "instrument" if spec.kind == "prompted" else spec.kind


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@register_sink(
    suffixes=(".dataset/",), help="frames and masks to train on", replaces=replaced_folder, writes_frames=True
)
def open_dataset_folder(target: str, spec: OutputSpec, settings: EncoderSettings) -> DatasetFolderSink:
    """Open a folder of frames and masks."""
    return DatasetFolderSink(Path(target), spec)
