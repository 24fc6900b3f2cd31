"""`cliprl-bench encoders`: how many encoders it tries, and the shares of the bound."""

from __future__ import annotations

from pathlib import Path

from media import make_clip

from cliprl.bench.commands import encoders
from cliprl.bench.commands.encoders import BOUND, encoder_counts, independent_round, joined_round, notes_of, series_of
from cliprl.bench.harness.timing import BenchJob, TaskOutcome, TimedRun


def test_counts_reach_the_processors_and_include_the_automatic_one() -> None:
    assert encoder_counts("ultrafast", 2) == [1, 2]
    assert encoder_counts("ultrafast", 16) == [1, 2, 4, 8, 16]
    assert encoder_counts("ultrafast", 24) == [1, 2, 4, 6, 8, 16]


def test_shares_are_of_the_rate_of_independent_encoders() -> None:
    def run(frames: int, seconds: float) -> list[TimedRun]:
        return [TimedRun(TaskOutcome(frames, {"size": [1.0]}), seconds, seconds)]

    answers = {BOUND: [run(400, 1.0), run(300, 1.0)], "1 encoder": [run(100, 1.0)], "4 encoders": [run(360, 1.0)]}
    shares = {series.case: series.rounds for series in series_of(answers) if series.name == "encoded"}
    assert shares == {"1 encoder": ((0.25,),), "4 encoders": ((0.9,),)}
    assert not [series for series in series_of({"1 encoder": [run(100, 1.0)]}) if series.name == "encoded"]


def test_rounds_of_both_kinds_encode_a_clip(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=6, size=(64, 48))
    job = BenchJob(str(clip), frames=40, seconds=0, warm_up=0)
    (joined,) = joined_round(job, "ultrafast", 2)
    (bound,) = independent_round(job, "ultrafast")
    assert joined.outcome.frames == 40
    assert bound.outcome.frames == 40 // encoders.available_cpus() * encoders.available_cpus()
    assert joined.outcome.samples["size"][0] > 0
    assert bound.outcome.samples["size"][0] > 0


def test_few_processors_are_named_as_too_few_for_the_goal() -> None:
    chosen, goal = notes_of("ultrafast", 2)
    assert "1 encoder would be chosen for 2 processors" in chosen
    assert "0.9 of the bound" in goal
    assert "16 processors: 2 can't show it" in goal
    assert notes_of("ultrafast", 16) == [
        "with a GPU that does not encode, 4 encoders would be chosen for 16 processors"
    ]
