"""`cliprl-bench guard`: how often the out-of-body guard takes the inside of a body for the outside, and the other way.

Each source is a video, or pictures: "in turn" follows them as frames of one video, 25 a second, as the guard does;
"alone" judges each by itself, which is for pictures that have nothing to do with each other.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from cliprl.bench.commands.precisions import shown
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, Say
from cliprl.engines import UsageError
from cliprl.pipeline import Frame, open_source
from cliprl.pipeline.live.privacy_guard import ENTER, LEAVE, BodyGuard, red_share

INSIDE, OUTSIDE = "inside", "outside"
METHOD = {
    "red share": "of the lit pixels of each picture that is lit at all",
    "in turn": "frames that the guard takes for the wrong side, one after the other; the first judges itself",
    "alone": f"pictures that are on the wrong side of the lower limit ({LEAVE:g}), of the upper one ({ENTER:g}), and of their "
    "middle, which is what the guard starts with",
}


def measure(session: ResultSession, job: BenchJob, say: Say, inside: Sequence[str], outside: Sequence[str]) -> Result:
    """Every source once; the same on any machine. Raises UsageError where none is given."""
    if not (inside or outside):
        raise UsageError("nothing to judge: give videos or pictures (FOLDER/*.png) from inside, or some with --outside")
    series: list[Series] = []
    for side, sources in ((INSIDE, inside), (OUTSIDE, outside)):
        for source in sources:
            say(shown(source))
            series += judged(source, side)
    words = [*map(shown, inside), *(word for source in outside for word in ("--outside", shown(source)))]
    given = {"name": "what the command names", "size": "each its own"}
    # No network takes part.
    return replace(session.result(series, METHOD), command=shlex.join(["cliprl-bench", "guard", *words]), input=given)


def judged(source: str, side: str) -> list[Series]:
    """What the guard says of every frame of a source, and of each by itself."""
    guard, wrong, shares = BodyGuard(), list[bool](), list[float]()
    with open_source(source) as frames:
        for index, frame in enumerate(frames):
            wrong.append(guard.update(_at(frame, index / 25)) is (side == INSIDE))
            share = red_share(frame)
            shares += [] if share is None else [share]
    case = f"{side}: {shown(source)}"

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
