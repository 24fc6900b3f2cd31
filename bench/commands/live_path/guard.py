"""`cliprl-bench guard`: how often the out-of-body guard confuses the inside and the outside of a body.

Each source is a video or a set of images: "in turn" treats them as frames of one video at 25 FPS, as the guard does; "alone"
judges each separately, for unrelated images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from cliprl.bench.harness.clips import short_name
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.engines import UsageError
from cliprl.pipeline import Frame, open_source
from cliprl.pipeline.view.privacy_guard import ENTER, LEAVE, BodyGuard, red_share

INSIDE, OUTSIDE = "inside", "outside"
METHOD = {
    "red share": "of the lit pixels of each image that has any",
    "in turn": "frames that the guard assigns to the wrong side, one after the other",
    "alone": f"images on the wrong side of the lower limit ({LEAVE:g}), of the upper limit ({ENTER:g}), and of their "
    "middle, with which the guard starts",
}


@measurement(
    "guard",
    help="How often the out-of-body guard is wrong on your videos and images.",
    defaults=BenchJob("", rounds=1, seconds=0, warm_up=0),
    settings=(),
    clip=False,
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    inside: Annotated[
        Sequence[str], typer.Argument(metavar="[SOURCE]…", help="Videos, or FOLDER/*.png, of the inside of bodies.")
    ] = (),
    outside: Annotated[Sequence[str], typer.Option(help="Videos or images of anything else; may be repeated.")] = (),
) -> Result:
    """Judge every source once; the result is the same on any machine. Raises UsageError without a source."""
    if not (inside or outside):
        raise UsageError("nothing to judge: give videos or images (FOLDER/*.png) from inside, or some with --outside")
    series: list[Series] = []
    for side, sources in ((INSIDE, inside), (OUTSIDE, outside)):
        for source in sources:
            log(short_name(source))
            series += judged(source, side)
    return replace(session.result(series, METHOD), input={"name": "the sources of the command", "size": "various"})


def judged(source: str, side: str) -> list[Series]:
    """The guard's errors on the frames of a source, in turn and alone."""
    guard, wrong, shares = BodyGuard(), list[bool](), list[float]()
    with open_source(source) as frames:
        for index, frame in enumerate(frames):
            wrong.append(guard.update(_at(frame, index / 25)) is (side == INSIDE))
            share = red_share(frame)
            shares += [] if share is None else [share]
    case = f"{side}: {short_name(source)}"

    def missed(limit: float) -> Series:
        found = [share < limit if side == INSIDE else share >= limit for share in shares]
        return Series.of(case, f"alone, at {limit:g}", "% wrong", [[_percent(found)]])

    middle = (ENTER + LEAVE) / 2
    return [
        Series.of(case, "frames", "frames", [[len(wrong)]]),
        Series.of(case, "in turn", "% wrong", [[_percent(wrong)]]),
        *(missed(limit) for limit in (LEAVE, middle, ENTER)),
        Series.of(case, "red share", "1", [shares]),
    ]


def _at(frame: Frame, seconds: float) -> Frame:
    frame.times["captured"] = seconds
    return frame


def _percent(found: Sequence[bool]) -> float:
    return 100 * sum(found) / max(len(found), 1)
