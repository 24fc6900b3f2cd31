"""The presence of classes named at run time: absent ones have no mask, and events and status list the presence."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, open_bundle
from cliprl.models.studies.words.presence_study import fit_rows, score_rows
from cliprl.pipeline import OutputSpec, Segmentation, Segmenter, open_sink, open_source
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.schemas import load_schema
from cliprl.pipeline.segment.presence_gate import CLASS_PRESENCE, WORD_PRESENCE, PresenceGate, class_evidence

CLASSES = tuple(
    ClassSpec(name, (0, 0, 0), kind)
    for name, kind in (("tissue", "background"), ("shaft", "instrument"), ("swab", "prompted"), ("clip", "prompted"))
)


def segmentation(*shares: tuple[int, int, float]) -> Segmentation:
    """Tissue of 16x20 cells; each share is a class, its number of cells in the first rows, and its probability there."""
    logits = np.zeros((4, 320))
    logits[0] = 2.0
    start = 0
    for class_id, cells, chance in shares:
        place = slice(start, start + cells)
        logits[:, place] = np.log((1 - chance) / 3)
        logits[class_id, place] = np.log(chance)
        start += cells
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    chance_map: NDArray[np.float32] = p.reshape(4, 16, 20).astype(np.float32)
    labels = chance_map.argmax(axis=0).astype(np.uint8)
    return Segmentation(labels, chance_map, full_viewport(64, 80, 64, 80), 0.9, 0)


def test_the_evidence_is_the_mean_of_the_largest_margins() -> None:
    expected = np.log(0.7 / 0.1)  # the least number of cells that counts is four
    assert class_evidence(segmentation((2, 32, 0.7)), 2) == pytest.approx(expected, abs=1e-4)
    assert class_evidence(segmentation((2, 2, 0.7)), 2) < 0.5 * expected
    assert class_evidence(segmentation((2, 32, 0.7)), 3) < 0


def test_a_large_sure_mask_stays_and_specks_go() -> None:
    found = segmentation((2, 60, 0.95), (3, 1, 0.4))
    PresenceGate(CLASSES)(found)
    assert found.presence is not None
    assert found.presence["swab"] > CLASS_PRESENCE.threshold > found.presence["clip"]
    assert np.bincount(found.labels.ravel(), minlength=4).tolist()[2:] == [60, 0]


def test_cells_of_an_absent_class_go_to_another() -> None:
    found = segmentation((3, 1, 0.4))
    found.probabilities[1, 0, 0], found.probabilities[0, 0, 0] = 0.35, 0.1
    found.probabilities[2, 0, 0] = 0.38  # the next likely one, were it not absent too
    found.labels[1, 1] = 2
    PresenceGate(CLASSES)(found)
    assert found.labels[0, 0] == 1
    assert not np.isin(found.labels, (2, 3)).any()


def test_words_need_more_evidence_than_exemplars() -> None:
    classes = (*CLASSES[:2], replace(CLASSES[2], prompts=("a swab",)), CLASSES[3])
    for number, stays in ((2, False), (3, True)):
        found = segmentation((number, 40, 0.55))
        PresenceGate(classes)(found)
        assert bool((found.labels == number).any()) == stays


def test_classes_of_the_bundle_are_left_alone() -> None:
    found = segmentation((1, 1, 0.4))
    PresenceGate(CLASSES)(found)
    assert found.labels[0, 0] == 1
    assert max((found.presence or {}).values()) < CLASS_PRESENCE.threshold


def test_the_gate_runs_only_with_prompted_classes(tmp_path: Path) -> None:
    bundle, target = open_bundle("small"), tmp_path / "events.jsonl"
    embeddings = np.concatenate([bundle.embeddings, -bundle.embeddings[:1]])
    manifest = replace(bundle.manifest, classes=(*bundle.manifest.classes, CLASSES[2]))
    segmenter = Segmenter(
        replace(bundle, manifest=manifest, embeddings=embeddings, confidence=None), precision="f32", threads=1, steps=0
    )
    with open_source("demo:?seconds=0.04&size=320x256&rate=25") as source:
        frame = source.read()
        assert frame is not None
        found = segmenter(frame)
        assert list(found.presence or ()) == ["swab"]
        with open_sink(target, OutputSpec(source.info, segmenter.classes)) as sink:
            sink.write(frame, found)
    event = json.loads(target.read_text(encoding="utf-8").splitlines()[1])
    assert event["presence"] == {"swab": round((found.presence or {})["swab"], 4)}
    assert "presence" in json.dumps(load_schema("events"))


def test_the_fit_takes_known_classes_and_leaves_words_out() -> None:
    rng = np.random.default_rng(0)
    there = [(1, "class", float(rng.normal(3, 0.5)), True) for _ in range(100)]
    absent = [(0, "prompt", float(rng.normal(-1, 0.5)), False) for _ in range(100)]
    test = fit_rows([*there, *absent, (0, "word", 9.0, True), (-1, "class", 9.0, True)])
    assert all(test.is_present(row[2]) for row in there)
    assert np.mean([test.is_present(row[2]) for row in absent]) <= 0.05
    scores = score_rows([*there, *absent], test, test)
    assert scores["class"]["with_gate"]["recall"] == 1
    assert scores["prompt"]["with_gate"]["no_mask_if_absent"] == 1


def test_the_presence_test_is_that_of_the_committed_result() -> None:
    path = Path(__file__).parents[3] / "models" / "results" / "presence.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    assert (result["classes"], result["words"]) == (asdict(CLASS_PRESENCE), asdict(WORD_PRESENCE))
    assert not set(result["unknown_words"]) & set(result["fitted_words"])
