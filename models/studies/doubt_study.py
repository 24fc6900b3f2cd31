"""Fit the doubt of a frame (`cliprl.pipeline.segment.doubt`) on the protocol's sets for choosing, and on no other.

    python -m cliprl.models.studies.doubt_study --bundle small --set data.root=FOLDER --out runs/card

It shares the folder OUT/rows with the model card, and writes OUT/doubt.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import UsageError, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.load import load_recipe
from cliprl.models.data.registry import DatasetContext
from cliprl.models.evaluation.protocol import load_protocol
from cliprl.models.studies.model_card import auroc, card_rows, failed_frames, score_row, with_instrument
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.segment.doubt import MASK_STATISTICS

# Weight of the squared coefficients for each frame, and Newton steps: it converges in about ten.
RIDGE_PENALTY, NEWTON_STEPS = 0.01, 30

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LogisticModel:
    """A logistic regression on standardized statistics."""

    means: Values
    deviations: Values
    weights: Values
    intercept: float

    @classmethod
    def fit(cls, statistics: Values, failed: NDArray[np.bool_]) -> LogisticModel:
        """Fit to statistics (N, M) and outcomes (N,), by Newton's method with a ridge penalty."""
        means, deviations = statistics.mean(0), statistics.std(0) + 1e-6
        inputs = np.column_stack([(statistics - means) / deviations, np.ones(len(statistics))])
        penalty = RIDGE_PENALTY * len(inputs) * np.eye(inputs.shape[1])
        penalty[-1, -1] = 0
        weights = np.zeros(inputs.shape[1])
        for _ in range(NEWTON_STEPS):
            chance = 1 / (1 + np.exp(-inputs @ weights))
            curvature = (inputs * (chance * (1 - chance) + 1e-4)[:, None]).T @ inputs + penalty
            weights -= np.linalg.solve(curvature, inputs.T @ (chance - failed) + penalty @ weights)
        return cls(means, deviations, weights[:-1], float(weights[-1]))

    def logits(self, statistics: Values) -> Values:
        """Return the logits (N,) of statistics (N, M)."""
        return np.asarray((statistics - self.means) / self.deviations @ self.weights + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "statistics": list(MASK_STATISTICS),
            "means": [round(float(v), 5) for v in self.means],
            "deviations": [round(float(v), 5) for v in self.deviations],
            "weights": [round(float(v), 4) for v in self.weights],
            "intercept": round(self.intercept, 4),
        }


def left_out_auroc(sets: NDArray[np.str_], statistics: Values, failed: NDArray[np.bool_]) -> float | None:
    """Return the AUROC over all frames, each judged by a model that was fitted without its set."""
    logits = np.zeros(len(sets))
    for name in set(sets.tolist()):
        test = sets == name
        logits[test] = LogisticModel.fit(statistics[~test], failed[~test]).logits(statistics[test])
    return auroc(logits[failed], logits[~failed])


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def fit_doubt(
    out: Annotated[Path, typer.Option(help="Folder for the rows and doubt.json.")],
    bundle: Annotated[str, typer.Option(metavar="NAME|FOLDER", help="The engine bundle.")] = "small",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="data.root=FOLDER: the folder of the data sets.")
    ] = None,
    protocol: Annotated[Path | None, typer.Option(help="Another protocol file.", show_default="the package's")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Fit the doubt on the sets for choosing. It resumes."""
    rules, opened = load_protocol(protocol) if protocol else load_protocol(), open_bundle(bundle)
    context = DatasetContext(Path(load_recipe("small", set_ or ()).data.root), "data.root", out / "scenes", workers=1)
    names, statistics, failed = [], [], []
    with ProgressDisplay.open(quiet) as display:
        for row in card_rows(rules, [one.name for one in rules.choosing]):
            scores = score_row(opened, row, context, out / "rows", display)
            known = with_instrument(scores)
            names += [row.set.name] * int(known.sum())
            statistics.append(scores.statistics[known])
            failed.append(failed_frames(scores)[known])
    inputs, outcomes, sets = np.concatenate(statistics), np.concatenate(failed), np.array(names)
    if len(set(names)) < 2 or outcomes.all() or not outcomes.any():
        raise UsageError("the sets for choosing need frames with instruments from two sets, some with an IoU below 0.5")
    result = LogisticModel.fit(inputs, outcomes).to_json() | {
        "frames": {name: int((sets == name).sum()) for name in dict.fromkeys(names)},
        "failed": {name: int(outcomes[sets == name].sum()) for name in dict.fromkeys(names)},
        "auroc_of_sets_left_out": left_out_auroc(sets, inputs, outcomes),
    }
    (out / "doubt.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    raise SystemExit(run_app(app, "doubt_study"))
