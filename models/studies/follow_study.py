"""Score the following of one instrument from one click in the first frame: EndoVis 2015 D1 and D2, and rendered clips.

    python -m cliprl.models.studies.follow_study --data FOLDER/endovis2015 --out models/results/follow.json

The click is the innermost point of the largest instrument of the first frame. D1 and D2 are segmented by the bundle, the
rendered clips by their true masks; each of those hides one instrument, which is the one that is followed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.evaluation.tracking.clips import TOOL_GROUPS, RenderedClip, kept_crossings, kept_frames
from cliprl.models.evaluation.tracking.iou_association import TrueAssociation
from cliprl.models.evaluation.tracking.observations import NetworkMasks, Observer, TrueMasks
from cliprl.models.evaluation.tracking.sequence_score import SequenceScore
from cliprl.models.studies.tracking_study import LabeledFrame, RenderedOption, bundle_entry, robotic_frames
from cliprl.pipeline.core.segmentation import FollowState
from cliprl.pipeline.synthetic import SCENE_CLASSES
from cliprl.pipeline.tracking.follow import Follower, FollowTarget
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.id_map import ids_at
from cliprl.pipeline.tracking.tracker import InstrumentTracker

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
# Settings were chosen on the clips from seed 7,000,000 on, and on D1 and D2.
FIRST_FOLLOWED = 9_000_000
_STEP = 2
_TRUE_CELLS = "with true ids"


def follow_clip(
    frames: Iterable[LabeledFrame], observe: Observer, groups: ClassGroups, target: int | None = None
) -> dict[str, float]:
    """Follow one instrument of a clip (`target`; None: the largest of the first frame) from a click in the first frame.

    Returns J&F, that with the target's true cells of the same masks ("with true ids": what it misses is lost by the masks), and
    the most frames from its leaving until it is reported lost ("late lost"), and from its return until it is followed again
    ("late found"), with how often it left and returned.
    """
    tracker, truth, states = InstrumentTracker(groups), TrueAssociation(groups), list[tuple[bool, bool]]()
    score, best = SequenceScore(), SequenceScore()
    follower: Follower | None = None
    for index, (image, labels, ids) in enumerate(frames):
        seen = observe(image, labels)
        if follower is None:
            target = _largest(ids) if target is None else target
            x, y = _innermost(ids == target)
            follower = Follower(FollowTarget(f"{index}#{x},{y}", (index, x, y)))
        found = tracker.update(seen)
        followed = follower.update(index, found, seen.segmentation)
        truth.truth = ids
        for scored, instances, number in ((score, found, followed.id), (best, truth.update(seen), target)):
            seen.segmentation.instances = instances
            mask = ids_at(seen.segmentation, *ids.shape) == (number or -1)
            scored.add(*((one[::_STEP, ::_STEP]).astype(np.uint8) for one in (ids == target, mask)))
        states.append((bool((ids == target).any()), followed.state is FollowState.FOLLOWING))
    scores = {"J&F": score.result()["J&F"], _TRUE_CELLS: best.result()["J&F"]}
    return scores | {"frames": float(len(states))} | delays(states)


def delays(states: list[tuple[bool, bool]]) -> dict[str, float]:
    """Return how late a target is reported lost and found, of frames (whether it is in view, whether it is followed)."""
    late = {True: [0], False: [0]}
    changes = [place for place in range(1, len(states)) if states[place][0] != states[place - 1][0]]
    for place, end in itertools.pairwise([*changes, len(states)]):
        there = states[place][0]
        wait = next((i - place for i in range(place, end) if states[i][1] == there), end - place)
        late[there].append(wait)
    return {
        "left": float(len(late[False]) - 1),
        "late lost": float(max(late[False])),
        "returned": float(len(late[True]) - 1),
        "late found": float(max(late[True])),
    }


def _largest(ids: NDArray[np.uint8]) -> int:
    counts = np.bincount(ids.ravel())
    counts[0] = 0
    return int(counts.argmax())


def _innermost(mask: NDArray[np.bool_]) -> tuple[int, int]:
    depth = cv2.distanceTransform(np.pad(mask, 1).view(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


def follow_rendered(seed: int, start: float, kept: Path | None = None) -> dict[str, float]:
    """Follow the instrument of a rendered clip that is hidden in between. kept: see `kept_frames`."""
    clip = RenderedClip(seed, start)
    frames = ((frame.image, frame.labels, frame.ids) for frame in kept_frames(clip, kept))
    return follow_clip(frames, TrueMasks(len(SCENE_CLASSES)), TOOL_GROUPS, clip.plan.hidden)


def follow_table(clips: Mapping[str, Mapping[str, float]]) -> str:
    """Return the scores of the clips as a Markdown table."""
    keys = ["J&F", _TRUE_CELLS, "left", "late lost", "returned", "late found"]
    rows = [[name, *(f"{row[key]:.3g}" for key in keys)] for name, row in clips.items()]
    return markdown_table(["clip", *keys], rows).rstrip("\n")


@app.command()
def study(
    data: Annotated[
        Path | None, typer.Option(help="The folder of EndoVis 2015.", show_default="rendered clips only")
    ] = None,
    clips: Annotated[int, typer.Option(min=0, help="How many rendered clips.")] = 10,
    bundle: Annotated[str, typer.Option(help="The engine bundle that segments D1 and D2.")] = "small",
    rendered: RenderedOption = None,
    out: Annotated[Path, typer.Option(help="The result file.")] = Path("follow.json"),
) -> None:
    """Follow one instrument of each clip from one click, and write a result file."""
    found: dict[str, dict[str, float]] = {}
    about, classes = bundle_entry(bundle), open_bundle(bundle).manifest.classes
    options = f"--clips {clips} --bundle {about['name']}" + (" --data FOLDER" if data else "")
    heading = {"command": f"python -m cliprl.models.studies.follow_study {options}", "bundle": about}
    for seed, start in kept_crossings(FIRST_FOLLOWED, clips, rendered):
        found[f"rendered, {seed}"] = follow_rendered(seed, start, rendered)
        _write(out, found, heading)
    for name in ("D1", "D2") if data is not None else ():
        assert data is not None
        groups = ClassGroups.of(classes)
        found[name] = follow_clip(robotic_frames(data / "robotic" / name), NetworkMasks.of(bundle), groups)
        _write(out, found, heading)
    typer.echo(follow_table(found))


def _write(out: Path, found: Mapping[str, Any], heading: Mapping[str, Any]) -> None:
    write_result(out, {**heading, "date": date.today().isoformat(), "clips": found})


if __name__ == "__main__":
    raise SystemExit(run_app(app, "follow_study"))
