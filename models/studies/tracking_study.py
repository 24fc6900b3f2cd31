"""Score the tracker beside plain IoU association on the same masks: EndoVis 2015 D1 and D2, and rendered clips with crossings.

    python -m cliprl.models.studies.tracking_study --data FOLDER/endovis2015 --clips 200 --out models/results/tracking.json

D1 and D2 are segmented by the bundle; the rendered clips by their true masks, on the grid of the network.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import CliprlError, available_cpus, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.io import read_video
from cliprl.models.evaluation.tracking.clips import FRAME_RATE, TOOL_GROUPS, RenderedClip, find_crossings
from cliprl.models.evaluation.tracking.iou_association import IouAssociation
from cliprl.models.evaluation.tracking.observations import NetworkMasks, Observer, TrueMasks
from cliprl.models.evaluation.tracking.sequence_score import SequenceScore
from cliprl.pipeline.synthetic import SCENE_CLASSES
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.id_map import ids_at
from cliprl.pipeline.tracking.tracker import InstrumentTracker

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
FIRST_CLIP = 7_000_000
_TRACKERS: dict[str, type[InstrumentTracker] | type[IouAssociation]] = {
    "cliprl": InstrumentTracker,
    "IoU association": IouAssociation,
}
# Scores are computed on every second row and column.
_STEP = 2
_RETURNED = "right after return"
LabeledFrame = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]  # image, labels, ids


def score_clip(frames: Iterable[LabeledFrame], observe: Observer, groups: ClassGroups) -> dict[str, dict[str, float]]:
    """Track one clip with each tracker on the same masks; return the scores of each, with milliseconds a frame."""
    trackers = {name: make(groups) for name, make in _TRACKERS.items()}
    scores = {name: SequenceScore() for name in trackers}
    spent = {name: [0.0] for name in trackers}
    for image, labels, ids in frames:
        seen = observe(image, labels)
        for name, tracker in trackers.items():
            start = time.thread_time()
            seen.segmentation.instances = tracker.update(seen)
            spent[name].append(time.thread_time() - start)
            found = ids_at(seen.segmentation, *ids.shape)
            scores[name].add(ids[::_STEP, ::_STEP], np.ascontiguousarray(found[::_STEP, ::_STEP]))
    return {name: {**score.result(), "ms": float(np.median(spent[name][1:])) * 1000} for name, score in scores.items()}


def rendered_clip(seed: int, start: float) -> dict[str, dict[str, float]]:
    """Score one rendered clip by its true masks."""
    frames = ((frame.image, frame.labels, frame.ids) for frame in RenderedClip(seed, start))
    return score_clip(frames, TrueMasks(len(SCENE_CLASSES)), TOOL_GROUPS)


def robotic_video(folder: Path, bundle: str) -> dict[str, dict[str, float]]:
    """Score a video of EndoVis 2015 by the bundle's masks. Raises CliprlError if its files are missing."""
    if not (folder / "labels.npz").is_file():
        raise CliprlError(
            f"'{folder}' holds no labels.npz: give --data the folder of EndoVis 2015, which holds robotic/D1"
        )
    with np.load(folder / "labels.npz") as data:
        ids = data["instance"]
    images = read_video(folder / "video.avi")
    frames = ((image, one, one) for image, one in zip(images, ids, strict=True))
    return score_clip(frames, NetworkMasks.of(bundle), ClassGroups.of(open_bundle(bundle).manifest.classes))


def summary(clips: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the means over clips for each tracker, switches a minute, and the share of returns with the right id."""
    result = {}
    for name in _TRACKERS:
        rows = [clip[name] for clip in clips.values()]
        means = {
            key: float(np.mean([row[key] for row in rows])) for key in ("HOTA", "DetA", "AssA", "IDF1", "J&F", "ms")
        }
        frames, returns = sum(row["frames"] for row in rows), sum(row["returns"] for row in rows)
        means["switches a minute"] = sum(row["IDSW"] for row in rows) / (frames / FRAME_RATE / 60)
        means["returns"] = returns
        means["right after return"] = sum(row["returns_right"] for row in rows) / max(returns, 1)
        means["clips doubled over 5 frames"] = float(np.mean([row["doubled"] > 5 for row in rows]))
        result[name] = {key: round(value, 4) for key, value in means.items()}
    return result


def table(parts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return the summaries as a Markdown table."""
    keys = [
        "HOTA",
        "DetA",
        "AssA",
        "IDF1",
        "J&F",
        "switches a minute",
        "right after return",
        "clips doubled over 5 frames",
    ]
    lines = [f"| clips | tracker | {' | '.join(keys)} |", f"|---|---|{'-:|' * len(keys)}"]
    for part, trackers in parts.items():
        for name, row in trackers.items():
            cells = [f"{row[key]:.3g}" if row["returns"] or key != _RETURNED else "–" for key in keys]
            lines.append(f"| {part} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _parts(data: Path | None, clips: int, bundle: str) -> Iterator[tuple[str, str, dict[str, dict[str, float]]]]:
    for name in ("D1", "D2") if data is not None else ():
        assert data is not None
        yield f"{name}, masks of {bundle}", name, robotic_video(data / "robotic" / name, bundle)
    for seed, start in find_crossings(FIRST_CLIP, clips):
        yield "rendered, true masks", f"{seed} from {start:.1f} s", rendered_clip(seed, start)


@app.command()
def study(
    data: Annotated[
        Path | None, typer.Option(help="The folder of EndoVis 2015.", show_default="rendered clips only")
    ] = None,
    clips: Annotated[int, typer.Option(min=0, help="How many rendered clips.")] = 200,
    bundle: Annotated[str, typer.Option(help="The engine bundle that segments D1 and D2.")] = "small",
    out: Annotated[Path, typer.Option(help="The result file.")] = Path("tracking.json"),
) -> None:
    """Score the tracker beside plain IoU association on the same masks, and write a result file."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for part, clip, scores in _parts(data, clips, bundle):
        found.setdefault(part, {})[clip] = scores
        _write(out, found, f"--clips {clips} --bundle {bundle}" + (" --data FOLDER" if data else ""))
    typer.echo(table({part: summary(entries) for part, entries in found.items()}))


def _write(out: Path, found: Mapping[str, Any], options: str) -> None:
    result = {
        "command": f"python -m cliprl.models.studies.tracking_study {options}",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {available_cpus()} cores",
        "summary": {part: summary(entries) for part, entries in found.items()},
        "number of clips": {part: len(entries) for part, entries in found.items()},
        "clips": found,
    }
    text = json.dumps(result, indent=1, default=float)
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CliprlError(f"'{out}' can't be written ({error.strerror}): choose another place with --out") from error


if __name__ == "__main__":
    run_app(app, "tracking_study")
