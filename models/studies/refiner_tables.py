"""Write the results of the refiner study as tables and JSON: the measures of every arm and its gain over the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.models.config.config import Recipe
from cliprl.models.data.protocol import CHOSEN
from cliprl.models.evaluation.scoring.bootstrap import BLOCK_FRAMES, percentiles, resample
from cliprl.models.evaluation.scoring.confusion_counts import rows_of
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.studies.refiner_scores import REFINER_SCORES, Tally
from cliprl.models.training.run_datasets import RunDatasets

# Measures whose gain over the base is reported, with its interval.
GAINS = REFINER_SCORES[:2]


def gain(arms: Sequence[Tally], base: Tally, measure: str = REFINER_SCORES[0]) -> tuple[float, float, float]:
    """By how much a measure of an arm, the mean over its seeds, is above the base's, and the bootstrap interval of that over
    blocks of frames."""
    rows = list(rows_of(base.classes.sequences).values())
    scores = []
    for metric in (tally.metric()[measure] for tally in (*arms, base)):
        sums = np.stack([metric.rows[r].sum(0) for r in rows])
        scores.append(metric.reduce(np.concatenate([sums.sum(0, keepdims=True), resample(sums)])))
    gains = np.mean(scores[:-1], axis=0) - scores[-1]
    return float(gains[0]), *percentiles(gains[1:])


def write_tables(folder: Path, recipe: Recipe, sets: RunDatasets, tallies: Mapping[str, list[list[Tally]]]) -> None:
    """The tables, as Markdown and as JSON. `tallies` are by arm, seed and set; the first arm is the base."""
    titles = [f"{test.title} ({CHOSEN})" if test.use == CHOSEN else test.title for test in sets.tests]
    base = next(iter(tallies.values()))
    arms = {
        name: {
            title: {
                "seeds": [seed[n].values() for seed in seeds],
                **{f"gain in {name}": gain([seed[n] for seed in seeds], base[0][n], name) for name in GAINS},
            }
            for n, title in enumerate(titles)
        }
        for name, seeds in tallies.items()
    }
    steps = {
        "base": recipe.supervised.steps,
        "refiner": recipe.reinforcement.steps,
        "batch": recipe.reinforcement.batch,
    }
    result = {"recipe": recipe.name, "steps": steps, "frames of a block": BLOCK_FRAMES, "arms": arms}
    write_result(folder / "study.json", result)
    write_result(folder / "study.md", format_table(result, titles))


def format_table(result: Mapping[str, Any], titles: Sequence[str]) -> str:
    """A table for each measure: a line an arm, a column a set."""
    lines = []
    for measure in REFINER_SCORES:
        rows = [
            [name, *(_cell(columns[title], measure) for title in titles)] for name, columns in result["arms"].items()
        ]
        lines += [f"**{measure}**", "", markdown_table(["refiner", *titles], rows)]
    steps, seeds = result["steps"], len(next(iter(next(iter(result["arms"].values())).values()))["seeds"])
    head = (
        f"Base: {steps['base']} steps. Refiners: {steps['refiner']} steps of {steps['batch']}, {seeds} seeds, of which the "
        f"mean and the range are given; in brackets the gain over the base in points, with its 95 % interval over blocks of "
        f"{result['frames of a block']} frames."
    )
    return "\n".join([head, "", *lines])


def _cell(entry: Mapping[str, Any], measure: str) -> str:
    values = [seed[measure] for seed in entry["seeds"]]
    text = f"{np.mean(values):.3f}"
    if len(set(values)) > 1:
        text += f" ({min(values):.3f}–{max(values):.3f})"
    gained = entry.get(f"gain in {measure}", ())
    if any(gained):
        middle, low, high = (100 * value for value in gained)
        text += f" [{middle:+.1f}: {low:+.1f} to {high:+.1f}]"
    return text
