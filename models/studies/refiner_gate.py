"""Choose when a bundle refines and how its inputs are restored, on the protocol's sets for choosing and on no other.

    python -m cliprl.models.studies.refiner_gate --bundle FOLDER --set data.root=FOLDER --out runs/gate --write

Run it before the fit of the confidence, which depends on it.

Every candidate is scored beside controls: the policy on every frame, the mean of the logits over time, and restored inputs
without the policy. OUT/refiner-gate.json holds all of them; what it holds for the same bundle is not scored again. `--write`
seals the best candidate into the bundle: that with the largest mean gain among those that cost no set more than `--most-loss`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.typing import NDArray

from cliprl.engines import (
    Bundle,
    CompiledBundle,
    Engine,
    RestorationSpec,
    add_reference,
    load_engines,
    open_bundle,
    seal_bundle,
)
from cliprl.engines.bundle.reference_outputs import reference_of
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.protocol import ProtocolSet, load_protocol
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.frame_scores import BaseCapture, FrameScores, score_frames
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.studies.model_card import NOT_IN_ROWS, Row, card_rows
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.segment.decision import segmentation_of
from cliprl.pipeline.segment.segmenter import cell_colors

# Points of instrument IoU that refinement may cost a set.
MOST_LOSS = 0.2
# The gate before the last choice. Chosen earlier and not tried again: the sides and strength of the filter (a larger area takes
# 1.5 to 2.5 times as long), and the haze, where a gate that was chosen with 100 cost reported sets up to 4.7 points.
USUAL = RestorationSpec(
    noise=0.1,
    strength=1.0,
    light=100.0,
    haze=120.0,
    clearing=0.95,
    least=0.05,
    dark=55.0,
    patch=9,
    search=11,
    uneven=True,
)
# What the candidates change, and whether the policy refines. Haze above 255 does not occur. The base was trained with noise, and
# where there is little, the filter costs more than it gains.
CHANGES: tuple[tuple[dict[str, float], bool], ...] = (
    *(({"noise": noise}, True) for noise in (0.1, 0.12, 0.15, 0.2)),
    *(({"noise": noise}, False) for noise in (0.1, 0.15)),
    ({"noise": 0.15, "dark": 0.0}, True),
    ({"noise": 0.15, "haze": 255.0}, True),
    *(({"noise": 0.15, "memory": share}, True) for share in (0.5, 0.7)),
)
NOTE = "chosen by refiner_gate on the sets for choosing: models/results/refiner-gate.json"
RESULT = "refiner-gate.json"


class RememberingEncoder(Engine):
    """An encoder that keeps what it gave: nearly all designs give it the same images of a row."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._kept = engine, dict[bytes, Mapping[str, NDArray[Any]]]()
        self.backend, self.precision = engine.backend, engine.precision
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return what the encoder gives on the inputs' image."""
        key = inputs["image"].tobytes()
        if key not in self._kept:
            self._kept[key] = {name: value.copy() for name, value in self._engine.run(inputs).items()}
        return self._kept[key]


class TemporalMean(BaseCapture):
    """A control: half of the logits are those of the frame before."""

    def refine(self, context: FrameContext) -> None:
        """Mix the logits with those of the frame before, then do what the segmenter does without a step."""
        prior = self._prior.recall(context.logits, context.view, context.is_cut)
        mixed = (context.logits + prior) / 2
        super().refine(context)
        self._prior.keep(mixed, context.view)
        found = segmentation_of(mixed[0], context.view, 0, 0.0, self.regions)
        found.colors = cell_colors(context.image[0], found.labels.shape)
        context.segmentation = found


@dataclass(frozen=True, slots=True)
class Design:
    """A way to refine: the restoration (None: every frame is refined as it is), the steps, and the class that segments."""

    name: str
    restoration: RestorationSpec | None
    steps: int
    make: type[BaseCapture] = BaseCapture

    @property
    def is_candidate(self) -> bool:
        """Whether it may be chosen; the others are controls."""
        return self.restoration is not None

    def apply(self, bundle: Bundle) -> Bundle:
        """Return the bundle with this design as its default."""
        return replace(bundle, manifest=replace(bundle.manifest, restoration=self.restoration, steps=self.steps))


def designs(steps: int) -> list[Design]:
    """Return the controls and candidates for a policy of `steps` steps."""
    found = [Design("policy on every frame", None, steps), Design("mean over time", None, 0, TemporalMean)]
    for change, refines in CHANGES:
        spec = replace(USUAL, **change)  # type: ignore[arg-type]
        name = described(spec) if refines else f"{described(spec)}, without the policy"
        found.append(Design(name, spec, steps if refines else 0))
    return found


def described(spec: RestorationSpec) -> str:
    """Return in words when an input counts as damaged."""
    memory = f", {spec.memory:g} of the last result" if spec.memory else ""
    return f"noise above {spec.noise:g}, brightness below {spec.dark:g}, haze above {spec.haze:g}{memory}"


def design_scores(scores: FrameScores) -> dict[str, Any]:
    """Return the scores of one design on one row as JSON values: shares 0..1, the gain in points of instrument IoU."""
    result: dict[str, Any] = {"frames": len(scores.steps), "steps": round(float(scores.steps.mean()), 3)}
    base, refined, known = scores.base.sum(0), scores.refined.sum(0), max(1, int(scores.known.sum()))
    result["false_alarms"] = {"base": round(base[2] / known, 5), "refined": round(refined[2] / known, 5)}
    if base[1] > base[2]:
        iou = base[0] / base[1], refined[0] / max(1, refined[1])
        result |= {"iou": {"base": round(iou[0], 4), "refined": round(iou[1], 4)}}
        result["gain"] = round(100 * float(iou[1] - iou[0]), 2)
    return result


def choose(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Sequence[str], most_loss: float = MOST_LOSS
) -> str | None:
    """Return which of the candidates has the largest mean gain among those without a set that loses; None if all lose."""
    gains = {name: [row["gain"] for row in found[name].values() if "gain" in row] for name in names}
    fit = {name: sum(values) / len(values) for name, values in gains.items() if values and min(values) >= -most_loss}
    return max(fit, key=lambda name: fit[name]) if fit else None


def score_design(
    bundle: Bundle, engines: CompiledBundle, design: Design, row: Row, context: DatasetContext, every: int
) -> dict[str, Any]:
    """Score one design on one row of the protocol, on each `every`-th of the row's frames."""
    data = open_dataset(row.set.data, "test", context)
    if row.severity:
        data = CorruptedDataset(data, row.severity, (bundle.manifest.height, bundle.manifest.width))
    make = partial(design.make, engines=engines)
    return design_scores(score_frames(design.apply(bundle), data, row.set.ignore, row.set.every * every, make=make))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def choose_gate(
    out: Annotated[Path, typer.Option(help=f"Folder for {RESULT}.")],
    bundle: study_command.BundleOption = "small",
    set_: study_command.SetOption = None,
    protocol: study_command.ProtocolOption = None,
    every: Annotated[int, typer.Option(min=1, help="Score each n-th of the protocol's frames only.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Score the design of this name. May be repeated.")] = None,
    most_loss: Annotated[float, typer.Option(min=0, help="Points of IoU that a candidate may cost a set.")] = MOST_LOSS,
    write: Annotated[bool, typer.Option("--write", help="Seal the best candidate into the bundle's manifest.")] = False,
    quiet: study_command.QuietOption = False,
) -> None:
    """Score the designs on the sets for choosing, and choose one. It resumes."""
    rules, opened = load_protocol(protocol), open_bundle(bundle)
    context = study_command.study_context(set_, out)
    rows = list(card_rows(rules, [one.name for one in rules.choosing]))
    hashes = {name: value for name, value in opened.manifest.hashes.items() if name not in NOT_IN_ROWS}
    path, key = out / RESULT, {"hashes": hashes, "every": every, "sets": _digest(rules.choosing, context)}
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = kept["designs"] if {name: kept.get(name) for name in key} == key else {}
    tried = [one for one in designs(opened.manifest.steps) if not only or one.name in only]
    engines = load_engines(opened, precision="f32", threads=1)
    with ProgressDisplay.open(quiet) as display:
        for number, (row, design) in enumerate(product(rows, tried)):
            display.on_progress("designs", number, len(rows) * len(tried))
            if design is tried[0]:
                shared = replace(engines, encoder=RememberingEncoder(engines.encoder))
            mine = found.setdefault(design.name, {})
            if row.title not in mine:
                mine[row.title] = score_design(opened, shared, design, row, context, every)
                study_command.write_result(path, json.dumps(key | {"designs": found}, indent=1, allow_nan=False))
    best = choose(found, [one.name for one in tried if one.is_candidate], most_loss)
    chosen = next((one for one in tried if one.name == best), None)
    result = {
        "most_loss": most_loss,
        "chosen": best,
        "restoration": asdict(chosen.restoration) if chosen and chosen.restoration else None,
    }
    study_command.write_result(path, json.dumps(key | result | {"designs": found}, indent=1, allow_nan=False))
    typer.echo(designs_table(found))
    typer.echo(f"chosen: {best or f'none, each costs a set more than {most_loss:g} points'}")
    if write and chosen and chosen.restoration:
        write_design(opened, chosen)


def _digest(sets: Sequence[ProtocolSet], context: DatasetContext) -> str:
    """Return a hash of the sets that a design is chosen by: of other sets nothing is kept."""
    parts = [asdict(one) | {"content": study_command.content_of(one, context)} for one in sets]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def write_design(bundle: Bundle, design: Design) -> None:
    """Seal a design into the manifest. The reference of the bundle is computed again where the number of steps changes."""
    assert design.restoration is not None
    manifest = replace(design.apply(bundle).manifest, restoration=replace(design.restoration, note=NOTE))
    images = reference_of(bundle).images
    sealed = seal_bundle(bundle.path, manifest, bundle.embeddings)
    if design.steps != bundle.manifest.steps:
        add_reference(sealed, images)


def designs_table(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the mean and least gain of each design, in points, its largest rise of false alarms and its mean steps."""
    lines = []
    for name, rows in found.items():
        gains = [row["gain"] for row in rows.values() if "gain" in row]
        rise = max(row["false_alarms"]["refined"] - row["false_alarms"]["base"] for row in rows.values())
        steps = sum(row["steps"] for row in rows.values()) / len(rows)
        shown = [f"{sum(gains) / len(gains):+.1f}", f"{min(gains):+.1f}"] if gains else ["–", "–"]
        lines.append([name, *shown, f"{100 * rise:+.2f} points", f"{steps:.2f}"])
    return markdown_table(["design", "mean gain", "least gain", "false alarms, at most", "steps"], lines).rstrip("\n")


if __name__ == "__main__":
    raise SystemExit(run_app(app, "refiner_gate"))
