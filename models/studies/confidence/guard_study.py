"""Compare the out-of-body guard's red share with the distance of a frame from those that the bundle is for.

    python -m cliprl.models.studies.confidence.guard_study --set data.root=FOLDER --out runs/card --outside stills:FOLDER

Inside a body: the clean sets for reporting. Outside: skin that fills the image, in the ten tones of the Monk scale under
three lights, which is drawn here, and the sets of `--outside`. It shares OUT/rows with the model card, and writes
OUT/guard-study.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import UsageError, open_bundle
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.protocol import REPORTED, load_protocol
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.studies.confidence.fits import Values, distances
from cliprl.models.studies.model_card import Row, RowScorer, card_rows, outside_row
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.sources.images.array_frame import frame_of_image
from cliprl.pipeline.view.privacy_guard import ENTER, LEAVE, red_share

# Monk Skin Tone scale (Monk 2019), R, G, B.
SKIN_TONES = (
    (246, 237, 228), (243, 231, 219), (247, 234, 208), (234, 218, 186), (215, 189, 150),
    (160, 126, 86), (130, 92, 67), (96, 65, 52), (58, 49, 42), (41, 36, 32),
)  # fmt: skip
# Daylight, a lamp, and the cold light of an endoscope: factors of R, G, B.
LIGHTS = ((1.0, 1.0, 1.0), (1.0, 0.85, 0.65), (0.92, 1.0, 1.05))
SKIN_SIZE = (256, 320)
# The share of red that an image too dark to judge counts with.
DARK_SHARE = 0.0


def skin_image(tone: tuple[int, int, int], light: tuple[float, float, float], seed: int) -> NDArray[np.uint8]:
    """Draw skin close to the lens, RGB uint8 (256, 320, 3): the tone under a light that falls off, with mottling and pores."""
    rng, (height, width) = np.random.default_rng(seed), SKIN_SIZE
    y, x = np.mgrid[:height, :width] / height - 0.5
    falloff = 1.1 - 0.9 * ((x - 0.15) ** 2 + y**2)
    mottling = cv2.resize(rng.normal(0, 1, (8, 10)), (width, height), interpolation=cv2.INTER_CUBIC)
    pores = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), 1.2)
    shade = falloff + 0.03 * mottling + 0.06 * pores
    return np.asarray(np.clip(shade[..., None] * np.multiply(tone, light), 0, 255), np.uint8)


def write_skin(folder: Path) -> int:
    """Write an image of each tone under each light into a folder. Return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, tone in enumerate(SKIN_TONES):
        for k, light in enumerate(LIGHTS):
            image = skin_image(tone, light, 3 * n + k)
            cv2.imwrite(str(folder / f"tone{n + 1:02d}-{k}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return len(SKIN_TONES) * len(LIGHTS)


def red_shares(row: Row, context: DatasetContext) -> NDArray[np.float64]:
    """Return the red share of each scored image of a row, (n,); 0 for one that is too dark."""
    data = open_dataset(row.set.data, "test", context)
    shares = [red_share(frame_of_image(data[index].image)) for index in range(0, len(data), row.set.every)]
    return np.array([DARK_SHARE if share is None else share for share in shares])


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compare_rules(
    out: Annotated[Path, typer.Option(help="Folder for the rows and guard-study.json.")],
    bundle: study_command.BundleOption = "small",
    set_: study_command.SetOption = None,
    protocol: study_command.ProtocolOption = None,
    outside: Annotated[
        list[str] | None, typer.Option(metavar="KIND:FOLDER", help="Images from outside a body. May be repeated.")
    ] = None,
    quiet: study_command.QuietOption = False,
) -> None:
    """Give the AUC of the red share, of the distance and of both, and the share of each set that each judges to be outside."""
    rules, opened = load_protocol(protocol), open_bundle(bundle)
    if opened.confidence is None:
        raise UsageError(
            f"bundle '{bundle}' has no {CONFIDENCE_FILE}: fit it with cliprl.models.studies.confidence.calibration"
        )
    context = study_command.study_context(set_, out)
    write_skin(out / "skin")
    lines = [f"stills:{(out / 'skin').resolve()}", *(outside or ())]
    further = [outside_row(line) for line in lines]
    rows = [*(row for row in card_rows(rules, (), (0,)) if row.use == REPORTED), *further]
    measured: list[tuple[Row, NDArray[np.float64], NDArray[np.float64]]] = []
    with ProgressDisplay.open(quiet) as display:
        scorer = RowScorer(opened, context, out / "rows", display)
        for row in rows:
            scores = scorer.score(row)
            far = distances(opened.confidence.familiarity, scores.frame_values())
            measured.append((row, 1 - red_shares(row, context), far))
    bundle_record = {"bundle": opened.manifest.name, "hashes": dict(opened.manifest.hashes)}
    result = bundle_record | guard_scores(measured, opened.confidence.unfamiliar)
    typer.echo(study_command.write_result(out / "guard-study.json", result))


def guard_scores(
    measured: list[tuple[Row, NDArray[np.float64], NDArray[np.float64]]], unfamiliar: float
) -> dict[str, Any]:
    """Return AUCs and shares of images judged to be outside, of rows with 1 - red share and distance (n,) of each image."""
    middle = 1 - (ENTER + LEAVE) / 2
    rules: dict[str, Callable[[Values, Values], Values]] = {
        "red share": lambda gray, far: gray,
        "distance": lambda gray, far: far,
        "either": lambda gray, far: np.maximum(gray / middle, far / unfamiliar),
    }
    limits = {"red share": middle, "distance": unfamiliar, "either": 1.0}
    result: dict[str, Any] = {
        "auc": {},
        "judged outside": {},
        "images": {row.set.name: len(far) for row, _, far in measured},
    }
    for name, rule in rules.items():
        values = [(row, rule(gray, far)) for row, gray, far in measured]
        inside = np.concatenate([found for row, found in values if not row.set.outside])
        result["auc"][name] = {row.set.name: auroc(found, inside) for row, found in values if row.set.outside}
        result["judged outside"][name] = {
            row.set.name: round(float((found >= limits[name]).mean()), 4) for row, found in values
        }
    return result


if __name__ == "__main__":
    raise SystemExit(run_app(app, "guard_study"))
