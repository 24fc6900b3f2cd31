"""The evaluation protocol and the model card: sides that share no data, the word "chosen", and scores that resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cliprl.engines import UsageError, open_bundle
from cliprl.models.config.load import load_recipe
from cliprl.models.data.image_mask_dataset import LabelledDataset, sequence_names
from cliprl.models.data.protocol import ProtocolSet, load_protocol, shipped_protocol
from cliprl.models.data.registry import DatasetContext, dataset_kinds, open_dataset
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.frame_scores import FrameScores
from cliprl.models.studies import model_card, model_card_tables
from cliprl.models.studies.model_card import Row, RowScorer, doubt_scores, summarize_row
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.core.confidence import CELL_INPUTS, COLOR_STATISTICS, FRAME_STATISTICS


def protocol_file(folder: Path, choosing: str, reporting: str) -> Path:
    path = folder / "protocol.toml"
    path.write_text(f"[[choosing]]\nname = 'a'\ndata = '{choosing}'\n[[reporting]]\nname = 'b'\ndata = '{reporting}'\n")
    return path


@pytest.mark.parametrize(
    ("choosing", "reporting", "shared"),
    [
        ("endovis2015:x?sequences=D1,D2", "endovis2015:y?sequences=D2,OP3", True),
        ("endovis2015:x?sequences=D1", "endovis2015:x", True),
        ("endovis2015:x?sequences=D1", "endovis2015:x?sequences=D2", False),
        ("stills:one/images", "stills:two/images", False),
        ("stills:one/images", "stills:one/images", True),
        ("stills:/data/one/images", "stills:one/images", True),
        ("stills:one/images", "stills:/data/one/images", True),
        ("coco:a/labels.json", "coco:b/labels.json", False),
        ("yolo:mine", "yolo:mine", True),
        ("composed:s?tissue=one&parts=p1,p2", "stills:one?sequences=p2", True),
        ("stills:one?sequences=p3", "composed:s?tissue=one&parts=p1,p2", False),
        ("composed:s?tissue=one&seeds=0-9", "raytraced:s?seeds=9", True),
        ("composed:s?tissue=one&seeds=0-9", "raytraced:s?seeds=10", False),
        ("empty:clip.mp4", "empty:clip.mp4?every=3", True),
        ("rendered:seeds=0-9", "rendered:seeds=9-12", True),
        ("rendered:seeds=0-9", "rendered:seeds=10-12", False),
    ],
)
def test_no_sequence_is_for_choosing_and_for_reporting(
    tmp_path: Path, choosing: str, reporting: str, shared: bool
) -> None:
    path = protocol_file(tmp_path, choosing, reporting)
    if shared:
        with pytest.raises(UsageError, match=r"'a' .choosing. and 'b' .reporting. share data"):
            load_protocol(path)
    else:
        assert load_protocol(path).use_of(reporting) == "reported"


@pytest.mark.parametrize("text", ["choosing = 3", "[[choosing]]\nname = 'a'\nnames = 'b'", "[[", ""])
def test_a_malformed_protocol_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "protocol.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        load_protocol(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="can't be read"):
        load_protocol(tmp_path / "none.toml")


def test_files_of_a_windows_editor_are_read(tmp_path: Path) -> None:
    path = protocol_file(tmp_path, "stills:one", "stills:two")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_protocol(path).choosing[0].data == "stills:one"
    (tmp_path / "mine.toml").write_bytes(b'\xef\xbb\xbfname = "mine"\r\n[data]\r\nscenes = 3\r\n')
    assert load_recipe(tmp_path / "mine.toml").data.scenes == 3


def test_labels_of_users_are_told_apart_by_their_paths() -> None:
    kinds = dataset_kinds().values()
    own = {kind.name for kind in kinds if kind.mark or kind.no_instrument}
    assert own | {"raytraced"} == {kind.name for kind in kinds if kind.named_by_path}


def test_a_line_is_chosen_with_any_of_its_sequences() -> None:
    protocol = shipped_protocol()
    assert protocol.use_of("endovis2015:anywhere", ["D2", "OP3"]) == "chosen"
    assert protocol.use_of("endovis2015:anywhere?sequences=OP3") == "reported"
    assert protocol.use_of("folder:mine") is None
    chosen, reported = protocol.choosing[0], protocol.reporting[0]
    assert Row(chosen, 3, protocol.use(chosen)).title == f"{chosen.name}, severity 3 (chosen)"
    assert "chosen" not in Row(reported, 0, protocol.use(reported)).title


def test_cases_of_laparoscopy_frames_are_sequences(tmp_path: Path) -> None:
    for name in ("c1-frame-10", "c1-frame-20", "clip_f003"):
        for folder, suffix, value in (("images", "jpg", 90), ("masks", "png", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{name}.{suffix}"), np.full((6, 8), value, np.uint8))
    data = open_dataset(f"laparoscopy:{tmp_path}")
    assert sequence_names(data) == ["c1", "clip"]
    assert data[0].labels.all()
    assert data.clip(0) != data.clip(1)


def frame_scores(base: list[list[int]], refined: list[list[int]], confidence: list[float]) -> FrameScores:
    count = len(base)
    return FrameScores(
        np.array(base, np.int64),
        np.array(refined, np.int64),
        np.full(count, 100),
        np.arange(count),
        np.array(confidence),
        np.arange(count)[:, None] * np.ones(len(FRAME_STATISTICS)),
        np.full((count, 2), 0.5),
        np.zeros((count, len(COLOR_STATISTICS))),
        np.ones(count, np.int64),
        np.zeros((count, 4), np.int64),
        np.array([f"clip{n}" for n in range(count)]),
        np.array(["one"] * count),
        np.full((count, len(CELL_INPUTS)), 0.75, np.float32),
        np.ones(count, bool),
    )


def test_card_gives_gain_false_alarms_and_auroc_of_doubt() -> None:
    row = Row(ProtocolSet("mine", "folder:mine"), 0, "reported")
    scores = frame_scores([[8, 10, 1], [2, 10, 3]], [[9, 10, 1], [2, 10, 0]], [0.9, 0.4])
    entry = summarize_row(row, scores)
    assert entry["iou"] == {"base": 0.5, "refined": 0.55}
    assert entry["false_alarms"] == {"base": 0.02, "refined": 0.005}
    found = doubt_scores([(row, scores)])
    assert found["failed_frames_by_confidence"] == 1.0
    assert "failed_frames" not in found
    assert found["outside_by_confidence"] is None
    assert entry["ece_of_instrument_cells"] == 0.25
    assert set(doubt_scores([(Row(row.set, 0, "chosen"), scores)]).values()) == {None}
    assert "+5.0" in model_card_tables.markdown({"rows": {row.title: entry}, "doubt_auroc": {"failed_frames": 1.0}})
    worse = summarize_row(Row(row.set, 3, "reported"), scores)
    card = {"rows": {row.title: entry, "worse": worse}, "doubt_auroc": {}}
    assert "| mine | 0.500 → 0.550 |" in model_card_tables.markdown(card)


def test_a_row_depends_on_the_rules_of_the_bundle() -> None:
    bundle, row = open_bundle("small"), Row(ProtocolSet("mine", "folder:mine"), 3, "reported")
    manifest = bundle.manifest
    assert manifest.restoration is not None
    assert manifest.regions is not None
    changed = {
        "noise": replace(manifest, restoration=replace(manifest.restoration, noise=0.9)),
        "dark": replace(manifest, restoration=replace(manifest.restoration, dark=1.0)),
        "search": replace(manifest, restoration=replace(manifest.restoration, search=33)),
        "regions": replace(manifest, regions=replace(manifest.regions, share=0.5)),
        "encoder": replace(manifest, hashes={**manifest.hashes, "encoder.onnx": "0"}),
    }
    same = replace(manifest, restoration=replace(manifest.restoration, note="other words"))
    assert row.file(replace(bundle, manifest=same)) == row.file(bundle)
    files = {name: row.file(replace(bundle, manifest=one)) for name, one in changed.items()}
    assert len({row.file(bundle), *files.values()}) == 1 + len(changed)


def test_a_card_is_written_and_rows_are_not_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eye").mkdir()
    cv2.imwrite(str(tmp_path / "eye" / "one.png"), np.full((32, 40, 3), 90, np.uint8))
    path = protocol_file(tmp_path, "stills:eye", "stills:other")
    arguments: dict[str, Any] = {
        "out": tmp_path / "card",
        "bundle": "small",
        "set_": [f"data.root={tmp_path}"],
        "protocol": path,
        "quiet": True,
    }
    model_card.write_card(**arguments, only=["a"], clean=False)
    first = json.loads((tmp_path / "card" / "card.json").read_text())
    assert list(first["rows"]) == ["a (chosen)"]
    monkeypatch.setattr(model_card, "score_frames", None)
    model_card.write_card(**arguments, only=["a"], clean=False)
    assert json.loads((tmp_path / "card" / "card.json").read_text()) == first
    cv2.imwrite(str(tmp_path / "eye" / "one.png"), np.full((32, 40, 3), 91, np.uint8))
    with pytest.raises(TypeError):  # scored again: it is another image
        model_card.write_card(**arguments, only=["a"], clean=False)
    with pytest.raises(UsageError, match="no set 'c': one of b, a"):
        model_card.write_card(**arguments, only=["c"], clean=False)


def test_the_frames_of_a_set_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eye").mkdir()
    cv2.imwrite(str(tmp_path / "eye" / "one.png"), np.full((32, 40, 3), 90, np.uint8))
    hashed: list[int] = []

    def hash_of_frames(dataset: LabelledDataset, every: int) -> str:
        hashed.append(every)
        return "0"

    monkeypatch.setattr(study_command, "hash_of_frames", hash_of_frames)
    monkeypatch.setattr(model_card, "score_frames", lambda *_: frame_scores([[8, 10, 1]], [[9, 10, 1]], [0.9]))
    with ProgressDisplay.open(True) as display:
        scorer = RowScorer(open_bundle("small"), DatasetContext(tmp_path), tmp_path / "rows", display)
        for severity in (0, 2):
            scorer.score(Row(ProtocolSet("mine", "stills:eye"), severity, "chosen"))
    assert hashed == [1]
    assert len(list((tmp_path / "rows").iterdir())) == 2
