"""The settings of an archive that determine its outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cliprl.engines import UsageError
from cliprl.engines.bundle.bundle import file_hash
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.pipeline.cli.class_selection import open_with_classes, select_classes
from cliprl.pipeline.cli.run_options import StreamOptions
from cliprl.pipeline.core.interfaces import LabelStyle
from cliprl.pipeline.live.factory import LiveOptions
from cliprl.pipeline.sinks.labels.masks import IDS_SUFFIX
from cliprl.pipeline.sinks.registry import find_sink, writes_files

EVENTS = "events.jsonl"
# The kinds of `--outputs`, and the names of the files in the folder of a video.
OUTPUT_KINDS = {
    "events": EVENTS,
    "report": "report.html",
    "overlay": "overlay.mp4",
    "coco": "labels.coco.json",
    "cvat": "labels.cvat.xml",
    "labelstudio": "labels.labelstudio.json",
    "yolo": "labels.yolo/",
    "masks": "masks/",
    "ids": f"instruments{IDS_SUFFIX}",
}


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """The options that all videos of an archive share; those of `cliprl-stream`. `outputs` are names of files."""

    outputs: tuple[str, ...] = (EVENTS, "report.html")
    bundle: str = "small"
    bundle_hash: str = ""
    precision: str = "auto"
    steps: int | None = None
    prompts: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    opacity: float = 0.4
    legend: bool = True
    status: bool = True
    ids: bool = False
    frames: int | None = None
    crf: int = 23
    preset: str = "ultrafast"
    polygons: bool = False
    input_size: str | None = None

    def checked(self) -> ArchiveSettings:
        """Open the bundle, check prompts, classes and outputs, and add the bundle's hash. Raises UsageError or BundleError."""
        bundle = open_with_classes(self.bundle, self.prompts, (), self.input_size)
        if self.classes is not None:
            select_classes(self.classes, bundle.manifest.mask_classes)
        if self.polygons and not any(kind and kind.refers_to_frames for kind in map(find_sink, self.outputs)):
            raise UsageError(
                "--polygons is for label files: add coco, cvat or labelstudio to --outputs, or leave it out"
            )
        if not self.ids and (named := [name for name in self.outputs if name.endswith(IDS_SUFFIX)]):
            raise UsageError(
                f"the output '{named[0]}' is for the ids of instruments, which are not tracked: give --ids too"
            )
        values = asdict(self) | {"bundle": bundle.manifest.name, "bundle_hash": file_hash(bundle.path / MANIFEST)}
        return ArchiveSettings(**values)

    def stream_options(self, bundle: str, source: str, folder: Path, device: str, threads: int) -> StreamOptions:
        """Return the options of the run of one video into `folder`; the events are always written."""
        names = self.outputs if EVENTS in self.outputs else (*self.outputs, EVENTS)
        return StreamOptions(
            source=source,
            outputs=tuple(f"{folder / name}{'/' if name.endswith('/') else ''}" for name in names),
            overwrite=False,
            frames=self.frames,
            bundle=bundle,
            steps=self.steps,
            budget_ms=None,
            device=device,
            precision=self.precision,
            threads=threads,
            prompts=self.prompts,
            classes=self.classes,
            opacity=self.opacity,
            contours=True,
            legend=self.legend,
            status=self.status,
            crf=self.crf,
            preset=self.preset,
            trace=None,
            web=None,
            window=False,
            live=LiveOptions(),
            labels=LabelStyle(polygons=self.polygons),
            ids=self.ids,
            input_size=self.input_size,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        return cls(**{**data, **lists})


def output_names(words: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the files that `--outputs` names, each once: kinds, or names such as overlay.mkv, with commas.

    Raises UsageError for an unknown kind, and where none is named.
    """
    found = [_output_name(part.strip()) for word in words for part in word.split(",") if part.strip()]
    if not found:
        raise UsageError(f"--outputs names no output: give one or more of {', '.join(OUTPUT_KINDS)}")
    return tuple(dict.fromkeys(found))


def _output_name(word: str) -> str:
    if word in OUTPUT_KINDS:
        return OUTPUT_KINDS[word]
    kind = find_sink(word) if "." in word.rstrip("/")[1:] and "/" not in word.rstrip("/") else None
    if kind is None or kind.is_stream or not writes_files(word):
        raise UsageError(
            f"unknown output '{word}': give one of {', '.join(OUTPUT_KINDS)}, or a file name such as overlay.mkv or "
            "case.report.csv"
        )
    return word


def differences(kept: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a phrase for each setting that differs between an archive and this run."""
    for name in dict.fromkeys([*kept, *now]):
        if kept.get(name) != now.get(name):
            yield f"{name.replace('_', ' ')} {_shown(kept.get(name))} there, {_shown(now.get(name))} now"


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"'{text[:60]}'"
