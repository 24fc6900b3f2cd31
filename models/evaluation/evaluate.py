"""The evaluation behind `cliprl-eval`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
from rich.console import Console
from rich.markdown import Markdown

from cliprl.engines import CliprlError, UsageError, explained, size_of, size_text
from cliprl.engines.bundle.input_size import AUTO_SIZE
from cliprl.models.data.augmentation.common_corruptions.kinds import COMMON, FURTHER, SEVERITIES
from cliprl.models.data.dataset_spec import DatasetSpec, severity_of
from cliprl.models.data.image_mask_dataset import LabelledDataset, image_file, left_out_note, sequence_names
from cliprl.models.data.label_mapping import ClassMap, map_by_name, map_to_instrument
from cliprl.models.data.protocol import CHOSEN, shipped_protocol
from cliprl.models.data.registry import dataset_kind, lines_of_path, open_dataset
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.data.splits import select_sequences
from cliprl.models.evaluation.evaluation import Corruption, Evaluation, draw_comparison, evaluate
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring import markdown
from cliprl.models.evaluation.study_command import counting_progress
from cliprl.models.evaluation.tracking.dataset_tracking import check_has_ids, score_tracking, tracking_table
from cliprl.pipeline.cli.class_selection import open_with_classes

TABLES = ("scores.json", "counts.json", "scores.md")


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """The options of one evaluation; see the command's help."""

    data: str
    bundle: str
    split: str | None
    out: Path
    union: bool
    renamed: tuple[str, ...]
    ignored: tuple[str, ...]
    steps: int | None
    precision: str
    threads: int
    frames: int | None
    corruptions: str | None
    severities: str
    seed: int
    tolerance: float
    worst: int
    ids: bool = False
    prompts: tuple[str, ...] = ()
    exemplars: tuple[str, ...] = ()
    input_size: str | None = None
    overwrite: bool = False


def run_evaluation(options: EvaluationOptions, console: Console) -> Mapping[str, Any]:
    """Score, write tables and images to the folder, and print the tables. Returns the content of scores.json."""
    lines = lines_of_path(options.data)
    if len(lines) > 1:
        raise UsageError(f"'{options.data}' holds several label files: give one of {', '.join(lines)}")
    options = replace(options, data=lines[0])
    corruptions = list(_corruptions(options))
    whole = open_dataset(options.data, further=("severity",))
    if note := left_out_note(whole):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    data: LabelledDataset = select_sequences(whole, options.split) if options.split else whole
    if options.input_size == AUTO_SIZE:
        raise UsageError("--input-size auto is for a video, which has a frame rate: give a size, such as 384x480")
    bundle = open_with_classes(options.bundle, options.prompts, options.exemplars, options.input_size)
    severity = severity_of(DatasetSpec.parse(options.data))
    if severity:
        data = CorruptedDataset(data, severity, (bundle.manifest.height, bundle.manifest.width))
    classes = _class_map(options, data, bundle.manifest.classes)
    indices = _first_frames(data, options.frames)
    if not indices:
        raise UsageError(f"data set '{options.data}' holds no frames: give another one, or other sequences")
    if options.ids:
        check_has_ids(data, indices)
    _check_outside(options, data)
    _make(options.out, options.overwrite)
    predictor = ImageSegmenter(bundle, steps=options.steps, precision=options.precision, threads=options.threads)
    evaluations = []
    with counting_progress(console) as progress:
        for corruption in corruptions:
            name = f"{corruption.kind} {corruption.severity or ''}"
            task = progress.add_task(name, total=len(indices))
            evaluations.append(
                evaluate(
                    predictor,
                    data,
                    classes,
                    corruption=corruption,
                    indices=indices,
                    tolerance=options.tolerance,
                    keep_worst=0 if corruption.severity else options.worst,
                    progress=lambda task=task: progress.advance(task),  # type: ignore[misc]
                )
            )
    result = _result(options, predictor, data, evaluations)
    if options.ids:
        result["tracking"] = score_tracking(data, indices, predictor)
    _write(options.out, result, evaluations[0])
    console.print(Markdown(markdown.format_summary(result)))
    if options.ids:
        console.print(Markdown(tracking_table(result["tracking"])))
    console.print(f"wrote {options.out}/scores.md, scores.json, counts.json", highlight=False)
    return result


def _check_outside(options: EvaluationOptions, data: LabelledDataset) -> None:
    """Raise UsageError if the images of the worst frames would lie among those of the data set, and belong to it then."""
    if dataset_kind(options.data).path_kind == "folder":
        places = {file.parent for index in range(len(data)) if (file := image_file(data, index))}
        out, whole = options.out.resolve(), Path(DatasetSpec.parse(options.data).path).resolve()
        images = [place.resolve() for place in places]
        # The folder of the set itself may hold them, beside its folders of images.
        if any(place in (out, *out.parents) or (out in place.parents and whole in out.parents) for place in images):
            raise UsageError(f"--out '{options.out}' lies among the images of the data set: give a folder outside")


def _corruptions(options: EvaluationOptions) -> Iterator[Corruption]:
    """Yield no corruption, then every kind at every severity."""
    yield Corruption()
    sets = {None: (), "common": tuple(COMMON), "all": (*COMMON, *FURTHER)}
    asked = options.corruptions
    kinds = sets[asked] if asked in sets else tuple((asked or "").split(","))
    severities = options.severities.split(",")
    for kind in kinds:
        if kind not in COMMON and kind not in FURTHER:
            raise UsageError(f"no corruption '{kind}': common, all, or some of {', '.join([*COMMON, *FURTHER])}")
        for severity in severities:
            if severity not in map(str, SEVERITIES):
                raise UsageError(f"severity '{severity}' is not one of 1 to 5: give them as 1,3,5")
            yield Corruption(kind, int(severity), options.seed)


def _class_map(options: EvaluationOptions, data: LabelledDataset, predicted: tuple[Any, ...]) -> ClassMap:
    if options.union:
        return map_to_instrument(data.classes, predicted, options.ignored)
    pairs = [text.partition("=") for text in options.renamed]
    for old, equals, new in pairs:
        if not (old and equals and new):
            raise UsageError(f"class map '{old}{equals}{new}' is not of the form BUNDLE=DATA")
    return map_by_name(data.classes, predicted, {old: new for old, _, new in pairs}, options.ignored)


def _first_frames(data: LabelledDataset, limit: int | None) -> list[int]:
    """Return the indices of the first `limit` samples of each sequence."""
    counts: dict[str, int] = {}
    chosen = []
    for index in range(len(data)):
        name = data.sequence(index)
        counts[name] = counts.get(name, 0) + 1
        if limit is None or counts[name] <= limit:
            chosen.append(index)
    return chosen


def _make(folder: Path, overwrite: bool) -> None:
    """Make the folder of the tables. Raises UsageError if that fails, or if it holds tables that may not be replaced."""
    kept = [name for name in TABLES if os.path.lexists(folder / name)]
    if kept and not overwrite:
        raise UsageError(
            f"'{folder}' holds {', '.join(kept)} of an earlier run: give another --out, or --overwrite to replace them"
        )
    with explained(f"'{folder}' can't be made", "give --out a place that can be written"):
        (folder / "worst").mkdir(parents=True, exist_ok=True)


def _result(
    options: EvaluationOptions, predictor: ImageSegmenter, data: LabelledDataset, evaluations: list[Evaluation]
) -> dict[str, Any]:
    settings = {
        "split": options.split,
        "classes": "instrument or not" if options.union else [spec.name for spec in evaluations[0].evaluator.classes],
        "class_map": list(options.renamed),
        "ignored": list(options.ignored),
        **({"prompts": list(options.prompts)} if options.prompts else {}),
        **({"exemplars": list(options.exemplars)} if options.exemplars else {}),
        "frames_of_each_sequence": options.frames,
        "input_size": size_text(size_of(predictor.bundle)),
        "refinement_steps": predictor.steps,
        "engine": f"{predictor.engine_name}, {predictor.precision}",
        "seed": options.seed,
        "protocol": _use(options, data),
    }
    return {
        "bundle": predictor.bundle.manifest.name,
        "hashes": dict(predictor.bundle.manifest.hashes),
        "data": data.name,
        "settings": settings,
        "worst": _worst(evaluations[0]),
        "results": [{"corruption": asdict(e.corruption)} | e.evaluator.to_json() for e in evaluations],
    }


def _use(options: EvaluationOptions, data: LabelledDataset) -> str | None:
    """Return what the evaluation protocol says of the scored sequences; None if it does not list them."""
    use = shipped_protocol().use_of(options.data, sequence_names(data))
    if use == CHOSEN:
        return "chosen: settings of the shipped bundle were chosen on this data, so these are no scores on unseen data"
    return "reported: no setting is chosen on this data" if use else None


def _worst(clean: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Return the worst frames by IoU and by false area, with the names of their files."""
    return {
        "iou": [{"file": f.name, "frame": f.index, "value": 1 - f.error} for f in clean.worst],
        "false area": [{"file": f.name, "frame": f.index, "value": f.error} for f in clean.worst_false],
    }


def _write(folder: Path, result: Mapping[str, Any], clean: Evaluation) -> None:
    """Tables, the clean run's pixel counts by frame (from which any overlap score can be made again), and images."""
    with explained(f"{folder} can't be written", "free space or give another --out", CliprlError):
        text = markdown.format_report(result)
        if "tracking" in result:
            text += f"\n## Tracking\n\n{tracking_table(result['tracking'])}\n"
        tables = {
            "scores.json": json.dumps(result, indent=1, allow_nan=False) + "\n",
            "counts.json": json.dumps(clean.evaluator.counts.to_json()) + "\n",
            "scores.md": text,
        }
        # With --overwrite, those of an earlier run stay until all of the new ones are on the disk.
        with TemporaryDirectory(prefix=".scores.", dir=folder) as beside:
            for name, content in tables.items():
                (Path(beside) / name).write_text(content, encoding="utf-8", errors="backslashreplace")
            for name in TABLES:
                (Path(beside) / name).replace(folder / name)
        for old in (folder / "worst").glob("*-[0-9]*_*_frame[0-9]*.png"):
            old.unlink()
    colors = [spec.color for spec in clean.evaluator.classes]
    pages = [("iou", 1 - seen.error, rank, seen) for rank, seen in enumerate(clean.worst)]
    pages += [("false-area", seen.error, rank, seen) for rank, seen in enumerate(clean.worst_false)]
    for order, value, rank, seen in pages:
        name = re.sub(r"[^\w.-]+", "_", Path(seen.name).stem)[:50]
        path = folder / "worst" / f"{order}-{rank:02d}_{value:.3f}_{name}_frame{seen.index:05d}.png"
        with explained(f"{path} can't be written", "free space or give another --out", CliprlError):
            path.write_bytes(
                cv2.imencode(".png", cv2.cvtColor(draw_comparison(seen, colors), cv2.COLOR_RGB2BGR))[1].tobytes()
            )
