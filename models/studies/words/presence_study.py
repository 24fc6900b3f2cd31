"""Fit the presence of classes (`PresenceGate`) on the protocol's sets for choosing, and score both sides.

    python -m cliprl.models.studies.words.presence_study --bundle small --set data.root=FOLDER --out runs/presence

Each frame is segmented once with the bundle's classes, and once for each word that no scene shows, added by a prompt. It writes
OUT/presence.json: the fit, and by set how often a mask is left where a class is, and none where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import Bundle, UsageError, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.protocol import CHOSEN, load_protocol, select_sets
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import IGNORE, Sample, evenly_spaced, instrument_classes
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.study_command import BundleOption, QuietOption, SetOption, study_context, write_result
from cliprl.models.labelling.pseudo_labels.prompt_bundle import PromptBundle
from cliprl.models.studies.words.word_scores import UNKNOWN_WORDS
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.segment.decision import segmentation_of
from cliprl.pipeline.segment.presence import PresenceTest, fit_presence
from cliprl.pipeline.segment.presence_gate import class_evidence
from cliprl.pipeline.segment.prompts import with_prompts

# A class counts as there from this share of the image's known pixels on, and as absent without a pixel.
MIN_SHOWN = 0.002
# Classes of data sets under other names than the bundle's.
ALIASES = {"shaft": "instrument-shaft", "head": "instrument-clasper", "surgical-tool": "instrument-shaft"}
# What is known of a class in a frame.
THERE, NOT_THERE, NOT_KNOWN = 1, 0, -1
# A prompt for a thing that many frames show. The bundle's classes that mean the same are left out for it.
PROMPT = "surgical instrument"
# Words for things that no scene shows, to which the test of words is fitted; those of `UNKNOWN_WORDS` are scored only.
FITTED_WORDS = ("a giraffe", "a violin", "a red car", "a stone bridge")
# One class in one frame: whether it is there, what it is ("class", "prompt", "word" or "fitted word"), its evidence, and whether
# it has a mask.
PresenceRow = tuple[int, str, float, bool]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class WordSegmenter(ImageSegmenter):
    """Segments each frame with the bundle's classes, and once for each further word; the results are in `found`, by word."""

    found: dict[str, Segmentation]

    def __init__(self, bundle: Bundle, words: Sequence[str]) -> None:
        self.words, self.own = words, len(bundle.manifest.classes)
        named = [f"word-{i}={word}" for i, word in enumerate(words)]
        super().__init__(with_prompts(bundle, named), precision="f32", threads=1)

    def refine(self, context: FrameContext) -> None:
        """Refine the logits of the bundle's classes, alone and with each word."""
        self.found, text = {}, self.bundle.embeddings
        for i, word in enumerate(("", *self.words)):
            rows = [*range(self.own), *([self.own + i - 1] if word else [])]
            base, self._refiner.text = np.ascontiguousarray(context.logits[:, rows]), text[rows]
            refined = self._refiner(context.features, base, base)
            values = refined.logits[0].copy(), context.view, refined.steps, refined.moved
            self.found[word] = segmentation_of(*values, self.regions)
        context.segmentation, self._refiner.text = self.found[""], text


@app.command()
def fit_gate(
    out: Annotated[Path, typer.Option(help="Folder for rendered scenes and presence.json.")],
    bundle: BundleOption = "small",
    set_: SetOption = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A set of the protocol; may be repeated.", show_default="all")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each set, evenly spaced.")] = 36,
    quiet: QuietOption = False,
) -> None:
    """Fit on the sets for choosing; the sets for reporting are scored only."""
    rules, opened = load_protocol(), open_bundle(bundle)
    context = study_context(set_, out)
    segmenter, rows = WordSegmenter(opened, (*UNKNOWN_WORDS, *FITTED_WORDS)), dict[str, list[PresenceRow]]()
    named = PromptBundle.of(opened, [PROMPT])
    prompted = WordSegmenter(named.bundle, ())
    sets = [one for one in select_sets(rules, name or ()) if not one.outside]
    with ProgressDisplay.open(quiet) as display:
        for one in sets:
            data = open_dataset(one.data, "test", context)
            indices = evenly_spaced(len(data), frames)
            rows[one.name] = []
            for done, index in enumerate(indices):
                sample = data[index]
                rows[one.name] += presence_rows(segmenter, opened, data, sample)
                prompted.reset()
                found = prompted.segment(sample.image)
                rows[one.name].append((instrument_state(data, sample), "prompt", *_evidence(found, named.first)))
                display.on_progress(one.name, done + 1, len(indices))
    chosen = [row for one in sets if rules.use(one) == CHOSEN for row in rows[one.name]]
    test, words = fit_rows(chosen), fit_rows(chosen, ("class", "prompt", "fitted word"))
    uses = dict.fromkeys(rules.use(one) for one in sets)
    result = {
        "classes": _rounded(test),
        "words": _rounded(words),
        "bundle": dict(opened.manifest.hashes),
        "prompt": PROMPT,
        "unknown_words": list(UNKNOWN_WORDS),
        "fitted_words": list(FITTED_WORDS),
        "sets": {one.name: {"use": rules.use(one)} | score_rows(rows[one.name], test, words) for one in sets},
        "all": {
            use: score_rows([row for one in sets if rules.use(one) == use for row in rows[one.name]], test, words)
            for use in uses
        },
    }
    typer.echo(write_result(out / "presence.json", result))


def presence_rows(
    segmenter: WordSegmenter, bundle: Bundle, data: LabelledDataset, sample: Sample
) -> Iterator[PresenceRow]:
    """Yield the rows of a frame: of the bundle's classes but the background, and of the words."""
    segmenter.reset()
    segmenter.segment(sample.image)
    for class_id, spec in enumerate(bundle.manifest.classes):
        if spec.kind != "background":
            yield class_state(data, sample, spec.name, spec.kind), "class", *_evidence(segmenter.found[""], class_id)
    for word in segmenter.words:
        kind = "fitted word" if word in FITTED_WORDS else "word"
        yield NOT_THERE, kind, *_evidence(segmenter.found[word], segmenter.own)


def _evidence(found: Segmentation, class_id: int) -> tuple[float, bool]:
    return class_evidence(found, class_id), bool((found.labels == class_id).any())


def class_state(data: LabelledDataset, sample: Sample, name: str, kind: str) -> int:
    """Return whether the truth of a frame shows a class: THERE, NOT_THERE or NOT_KNOWN."""
    known = int((sample.labels != IGNORE).sum())
    pixels = {spec.name: int((sample.labels == i).sum()) for i, spec in enumerate(data.classes)}
    own = [other for other in pixels if ALIASES.get(other, other) == name]
    if own:
        return _state(sum(pixels[other] for other in own), known)
    instruments = [pixels[spec.name] for spec in data.classes if spec.kind == "instrument"]
    return NOT_THERE if kind == "instrument" and instruments and not sum(instruments) else NOT_KNOWN


def instrument_state(data: LabelledDataset, sample: Sample) -> int:
    """Return whether the truth of a frame shows any instrument: THERE, NOT_THERE or NOT_KNOWN."""
    ids = np.flatnonzero(instrument_classes(data.classes))
    return _state(int(np.isin(sample.labels, ids).sum()), int((sample.labels != IGNORE).sum()))


def _state(count: int, known: int) -> int:
    return NOT_THERE if not count else THERE if count >= MIN_SHOWN * known else NOT_KNOWN


def fit_rows(rows: Sequence[PresenceRow], kinds: Sequence[str] = ("class", "prompt")) -> PresenceTest:
    """Fit the test to the rows of `kinds`, where it is known whether the thing is there."""
    known = [(state == THERE, evidence) for state, kind, evidence, _ in rows if state != NOT_KNOWN and kind in kinds]
    states, evidence = np.array([state for state, _ in known], bool), np.array([value for _, value in known])
    try:
        return fit_presence(evidence, states)
    except ValueError as error:
        raise UsageError(f"{error}: give more frames of the sets for choosing") from error


def score_rows(rows: Sequence[PresenceRow], test: PresenceTest, words: PresenceTest) -> dict[str, Any]:
    """Return recall where classes are there, and the share without a mask where they are not: without and with the gate.

    `test` judges the classes, `words` what is named by words.
    """
    kept = np.array([(test if kind == "class" else words).is_present(evidence) for _, kind, evidence, _ in rows])
    masks, state, kind = (np.array([row[i] for row in rows]) for i in (3, 0, 1))
    result: dict[str, Any] = {}
    for name in ("class", "prompt", "word"):
        there, absent = (kind == name) & (state == THERE), (kind == name) & (state == NOT_THERE)
        result[name] = {"there": int(there.sum()), "absent": int(absent.sum())}
        for side, shown in (("without_gate", masks), ("with_gate", masks & kept)):
            result[name][side] = {"recall": _share(shown[there]), "no_mask_if_absent": _share(~shown[absent])}
    return result


def _rounded(test: PresenceTest) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(test).items()}


def _share(values: NDArray[np.bool_]) -> float | None:
    return round(float(values.mean()), 4) if values.size else None


if __name__ == "__main__":
    raise SystemExit(run_app(app, "presence_study"))
