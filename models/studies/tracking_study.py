"""Score the tracker beside plain IoU association on the same masks: EndoVis 2015 D1 and D2, and rendered clips with crossings.

    python -m cliprl.models.studies.tracking_study --data FOLDER/endovis2015 --clips 200 --out models/results/tracking.json

D1 and D2 are segmented by the bundle; the rendered clips by their true masks, on the grid of the network, and some of them by
the bundle too. What the true ids on the same masks miss is lost by the masks, not by the association. Settings were chosen on
the clips from seeds 7,000,000 and 8,000,000 on, and on D1 and D2.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from datetime import date
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import CliprlError, available_cpus, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.io import read_video
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.evaluation.tracking.clips import FRAME_RATE, TOOL_GROUPS, RenderedClip, kept_crossings, kept_frames
from cliprl.models.evaluation.tracking.iou_association import IouAssociation, TrueAssociation
from cliprl.models.evaluation.tracking.observations import NetworkMasks, Observer, TrueMasks
from cliprl.models.evaluation.tracking.sequence_score import SequenceScore
from cliprl.pipeline.synthetic import SCENE_CLASSES
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.id_map import ids_at
from cliprl.pipeline.tracking.tracker import InstrumentTracker

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
# The clips for choosing settings are those from seed 7,000,000 on, and from 8,000,000 to 8,000,206.
FIRST_CLIP = 8_000_207
_TRUE_IDS = "true ids"
_TRACKERS: dict[str, type[InstrumentTracker | IouAssociation | TrueAssociation]] = {
    "cliprl": InstrumentTracker,
    "IoU association": IouAssociation,
    _TRUE_IDS: TrueAssociation,
}
# Scores are computed on every second row and column.
_STEP = 2
_RETURNED = "right after return"
RenderedOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Keep rendered clips here, 50 MB each.", show_default="not kept"),
]
LabeledFrame = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]  # image, labels, ids


def score_clip(frames: Iterable[LabeledFrame], observe: Observer, groups: ClassGroups) -> dict[str, dict[str, float]]:
    """Track one clip with each tracker on the same masks; return the scores of each, with milliseconds a frame.

    The true ids are for the masks of networks only.
    """
    chosen = [name for name in _TRACKERS if name != _TRUE_IDS or isinstance(observe, NetworkMasks)]
    trackers = {name: _TRACKERS[name](groups) for name in chosen}
    scores = {name: SequenceScore() for name in trackers}
    spent = {name: [0.0] for name in trackers}
    for image, labels, ids in frames:
        seen = observe(image, labels)
        for name, tracker in trackers.items():
            if isinstance(tracker, TrueAssociation):
                tracker.truth = ids
            start = time.thread_time()
            seen.segmentation.instances = tracker.update(seen)
            spent[name].append(time.thread_time() - start)
            found = ids_at(seen.segmentation, *ids.shape)
            scores[name].add(ids[::_STEP, ::_STEP], np.ascontiguousarray(found[::_STEP, ::_STEP]))
    return {name: {**score.result(), "ms": float(np.median(spent[name][1:])) * 1000} for name, score in scores.items()}


def rendered_clip(
    seed: int, start: float, kept: Path | None = None, bundle: str | None = None
) -> dict[str, dict[str, float]]:
    """Score one rendered clip by its true masks, or by those of a bundle. kept: see `kept_frames`."""
    frames = ((frame.image, frame.labels, frame.ids) for frame in kept_frames(RenderedClip(seed, start), kept))
    if bundle is not None:
        return score_clip(frames, _masks(bundle), ClassGroups.of(open_bundle(bundle).manifest.classes))
    return score_clip(frames, TrueMasks(len(SCENE_CLASSES)), TOOL_GROUPS)


@lru_cache(maxsize=1)
def _segmenter(bundle: str) -> ImageSegmenter:
    return ImageSegmenter(bundle, threads=1)


def _masks(bundle: str) -> NetworkMasks:
    """Observe a new clip by the masks of a bundle, which is opened once in a process."""
    return NetworkMasks(_segmenter(bundle))


def robotic_frames(folder: Path) -> Iterator[LabeledFrame]:
    """Read a video of EndoVis 2015 with its instances. Raises CliprlError if its files are missing."""
    if not (folder / "labels.npz").is_file():
        raise CliprlError(
            f"'{folder}' holds no labels.npz: give --data the folder of EndoVis 2015, which holds robotic/D1"
        )
    with np.load(folder / "labels.npz") as data:
        ids = data["instance"]
    for image, one in zip(read_video(folder / "video.avi"), ids, strict=True):
        yield image, one, one


def robotic_video(folder: Path, bundle: str) -> dict[str, dict[str, float]]:
    """Score a video of EndoVis 2015 by the bundle's masks. Raises CliprlError if its files are missing."""
    groups = ClassGroups.of(open_bundle(bundle).manifest.classes)
    return score_clip(robotic_frames(folder), _masks(bundle), groups)


def summary(clips: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the means over clips for each tracker, switches a minute, and the share of returns with the right id."""
    result = {}
    for name in next(iter(clips.values())):
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
    keys = ("HOTA", "DetA", "AssA", "IDF1", "J&F", "switches a minute", _RETURNED, "clips doubled over 5 frames")
    rows = [
        [part, name, *(f"{row[key]:.3g}" if row["returns"] or key != _RETURNED else "–" for key in keys)]
        for part, trackers in parts.items()
        for name, row in trackers.items()
    ]
    return markdown_table(["clips", "tracker", *keys], rows).rstrip("\n")


def _tasks(
    data: Path | None, clips: int, segmented: int, bundle: str, kept: Path | None
) -> Iterator[tuple[str, str, Any]]:
    """Return the part, the name of the clip, and the function that scores it."""
    title = open_bundle(bundle).manifest.name
    for name in ("D1", "D2") if data is not None else ():
        assert data is not None
        yield f"{name}, masks of {title}", name, partial(robotic_video, data / "robotic" / name, bundle)
    for number, (seed, start) in enumerate(kept_crossings(FIRST_CLIP, clips, kept)):
        clip = f"{seed} from {start:.1f} s"
        yield "rendered, true masks", clip, partial(rendered_clip, seed, start, kept)
        if number < segmented:
            yield f"rendered, masks of {title}", clip, partial(rendered_clip, seed, start, kept, bundle)


@app.command()
def study(
    data: Annotated[
        Path | None, typer.Option(help="The folder of EndoVis 2015.", show_default="rendered clips only")
    ] = None,
    clips: Annotated[int, typer.Option(min=0, help="How many rendered clips.")] = 200,
    segmented: Annotated[int, typer.Option(min=0, help="How many of them the bundle segments, too.")] = 20,
    bundle: Annotated[str, typer.Option(help="The engine bundle that segments D1 and D2.")] = "small",
    workers: Annotated[int, typer.Option(min=1, help="Processes that score clips at the same time.")] = 1,
    rendered: RenderedOption = None,
    out: Annotated[Path, typer.Option(help="The result file.")] = Path("tracking.json"),
) -> None:
    """Score the tracker beside plain IoU association on the same masks, and write a result file.

    Clips that the result file has already are not scored again.
    """
    about = bundle_entry(bundle)
    found, title = _read(out, about), about["name"]
    options = f"--clips {clips} --segmented {segmented} --bundle {title}" + (" --data FOLDER" if data else "")
    heading = {"command": f"python -m cliprl.models.studies.tracking_study {options}", "bundle": about}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending: dict[Future[dict[str, dict[str, float]]], tuple[str, str]] = {}
        for part, clip, score in _tasks(data, clips, segmented, bundle, rendered):
            if clip not in found.setdefault(part, {}):
                pending[pool.submit(score)] = part, clip
        for done in as_completed(pending):
            part, clip = pending[done]
            found[part][clip] = done.result()
            _write(out, found, heading)
    typer.echo(table({part: summary(entries) for part, entries in found.items()}))


def bundle_entry(bundle: str) -> dict[str, Any]:
    """Return what a result file says of a bundle: its name and the hashes of its files."""
    manifest = open_bundle(bundle).manifest
    return {"name": manifest.name, "hashes": dict(manifest.hashes)}


def _read(out: Path, bundle: Mapping[str, Any]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return the scores of an earlier run that was interrupted. Raises CliprlError for those of another bundle."""
    if not out.is_file():
        return {}
    try:
        result = json.loads(out.read_text(encoding="utf-8"))
        clips, scored = dict(result["clips"]), result.get("bundle")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CliprlError(
            f"'{out}' is no result of this study: remove it, or choose another place with --out"
        ) from error
    if scored != bundle:
        raise CliprlError(f"'{out}' was scored with another bundle: remove it, or choose another place with --out")
    return clips


def _write(out: Path, found: Mapping[str, Any], heading: Mapping[str, Any]) -> None:
    result = {
        **heading,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {available_cpus()} cores",
        "summary": {part: summary(entries) for part, entries in found.items() if entries},
        "number of clips": {part: len(entries) for part, entries in found.items()},
        "clips": found,
    }
    write_result(out, result)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "tracking_study"))
