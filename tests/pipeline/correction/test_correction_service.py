"""Corrections: what a click changes, what follows it, and that nothing that was kept is lost or replaced."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from correction_fakes import (
    HEIGHT,
    WIDTH,
    KnownSegmenter,
    PaintingNetwork,
    corrected_clip,
    known_bundle,
    service_of,
    write_clip,
)
from filelock import FileLock
from webplayer import CLASSES, Player

from cliprl.engines import CliprlError, UsageError
from cliprl.engines.promptable import open_promptable
from cliprl.models.data.registry import open_dataset
from cliprl.pipeline.cli.correction_options import CorrectionOptions
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.correction.class_odds import class_odds, with_class_odds
from cliprl.pipeline.correction.corrector import Corrector, PromptedNetwork
from cliprl.pipeline.correction.frames import FileFrames, HeldFrame, LiveFrames
from cliprl.pipeline.correction.prompts import MaskPrompt, network_points
from cliprl.pipeline.correction.service import MOST_HELD, CorrectionService, NotHeldError
from cliprl.pipeline.correction.store import CorrectionStore
from cliprl.pipeline.live.broadcast import Broadcast
from cliprl.pipeline.live.playback import open_file_at
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels
from cliprl.pipeline.sources import open_source

SHAFT = MaskPrompt(1, (60.0, 60.0))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[CorrectionService]:
    with corrected_clip(tmp_path) as (_, made):
        yield made


def labels(service: CorrectionService, hold_id: str) -> np.ndarray:
    hold = service.find(hold_id)
    return frame_labels(hold.held.frame, hold.draft.segmentation).copy()


def test_odds_that_are_written_are_read_again() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (4, 5, 6)).astype(np.float32)
    odds = np.full((5, 6), 1.5, np.float32)
    changed = with_class_odds(logits, [1, 3], odds)
    assert np.allclose(class_odds(changed, [1, 3]), odds, atol=1e-5)
    assert np.allclose(changed[1] - changed[3], logits[1] - logits[3], atol=1e-5)
    assert np.array_equal(changed[[0, 2]], logits[[0, 2]])


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_clicks_on_a_turned_frame_hit_their_pixel(rotation: int) -> None:
    luma = np.zeros((HEIGHT, WIDTH), np.uint8)
    luma[40, 250] = 255
    frame = Frame(luma, np.zeros((HEIGHT // 2, WIDTH // 2, 2), np.uint8), 0, Fraction(1, 25), 0, rotation=rotation)
    row, column = np.argwhere(np.rot90(luma, rotation // 90))[0]
    view = full_viewport(HEIGHT, WIDTH, HEIGHT, WIDTH)
    x, y = network_points(MaskPrompt(1, (column + 0.5, row + 0.5)), frame, view)[0]
    assert (x, y) == pytest.approx((250.5, 40.5))


def test_clicks_change_the_mask_and_are_taken_back(service: CorrectionService) -> None:
    hold = service.hold()
    assert not labels(service, hold.id).any()
    service.prompt(hold.id, SHAFT)
    assert labels(service, hold.id)[60, 60] == 1
    service.prompt(hold.id, MaskPrompt(2, (200.0, 100.0, 260.0, 140.0)))
    assert labels(service, hold.id)[120, 230] == 2
    service.prompt(hold.id, replace(SHAFT, positive=False))
    assert labels(service, hold.id)[60, 60] == 0
    service.undo(hold.id)
    service.undo(hold.id)
    assert labels(service, hold.id)[60, 60] == 1
    service.undo(hold.id)
    service.undo(hold.id)
    assert not labels(service, hold.id).any()


def test_what_is_kept_is_a_data_set_to_train_on(service: CorrectionService, tmp_path: Path) -> None:
    hold = service.hold()
    service.prompt(hold.id, SHAFT)
    _, revision, others = service.keep(hold.id, "Ada")
    assert (revision.number, others) == (1, [])
    data = open_dataset(f"folder:{tmp_path / 'kept'}")
    sample = data[0]
    assert [spec.name for spec in data.classes] == [spec.name for spec in CLASSES]
    assert np.array_equal(sample.labels, labels(service, hold.id))
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    entry = json.loads((tmp_path / "kept" / "corrections.jsonl").read_text())
    assert (entry["author"], entry["network"], entry["base_revision"]) == ("Ada", "painting", 0)
    assert entry["prompts"] == [{"class": "shaft", "point": [60.0, 60.0], "positive": True}]
    assert len(entry["bundle_sha256"]) == 64
    assert "clip.mp4" in entry["source"]


def test_changes_since_the_last_keep_are_unkept(service: CorrectionService) -> None:
    hold = service.hold()
    service.prompt(hold.id, SHAFT)
    service.step(hold.id, 1)
    assert hold.draft.is_kept
    service.step(hold.id, -1)
    assert not hold.draft.is_kept
    service.keep(hold.id, "")
    assert hold.draft.is_kept
    service.undo(hold.id)
    service.prompt(hold.id, replace(SHAFT, corners=(90.0, 90.0)))
    assert not hold.draft.is_kept


def test_undo_remembers_the_clicked_class_alone(service: CorrectionService) -> None:
    hold = service.hold()
    start = hold.draft.logits.copy()
    for class_id in (1, 2, 1):
        service.prompt(hold.id, replace(SHAFT, class_id=class_id))
    assert all(one.shape == start.shape[1:] for one in hold.draft.history)
    for _ in range(3):
        service.undo(hold.id)
    assert np.array_equal(hold.draft.logits, start)


def test_a_waiting_step_does_not_block_other_requests(service: CorrectionService) -> None:
    slow, other = service.hold(), service.hold()
    begun, goes_on = threading.Event(), threading.Event()

    class SlowFrames:
        kept_bytes = 0

        def following(self, held: HeldFrame) -> Iterator[HeldFrame]:
            begun.set()
            assert goes_on.wait(60)
            return iter(())

    slow.frames = SlowFrames()  # type: ignore[assignment]
    errors: list[UsageError] = []

    def step() -> None:
        try:
            service.step(slow.id, 1)
        except UsageError as error:
            errors.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    assert begun.wait(60)
    done = threading.Thread(target=service.prompt, args=(other.id, SHAFT), daemon=True)
    done.start()
    done.join(30)
    assert not done.is_alive()
    goes_on.set()
    thread.join()
    assert "last frame" in str(errors[0])


def test_two_people_keep_one_frame_and_both_stay(service: CorrectionService, tmp_path: Path) -> None:
    first, second = service.hold(), service.hold()
    assert first.name == second.name
    service.prompt(first.id, SHAFT)
    service.prompt(second.id, replace(SHAFT, class_id=2))
    service.keep(first.id, "Ada")
    assert [one.author for one in service.newer(second)] == ["Ada"]
    _, revision, others = service.keep(second.id, "Grace")
    assert revision.number == 2
    assert [(one.number, one.author) for one in others] == [(1, "Ada")]
    assert len(list((tmp_path / "kept" / "revisions").iterdir())) == 2
    assert service.hold().base == 2
    assert labels(service, service.hold().id)[60, 60] == 2


def test_what_others_keep_during_a_step_away_is_shown(service: CorrectionService) -> None:
    first, second = service.hold(), service.hold()
    service.prompt(first.id, SHAFT)
    service.step(first.id, 1)
    service.prompt(second.id, SHAFT)
    service.keep(second.id, "Ada")
    service.step(first.id, -1)
    _, revision, others = service.keep(first.id, "Grace")
    assert revision.number == 2
    assert [one.author for one in others] == ["Ada"]


def test_programs_that_keep_at_once_get_revisions_of_their_own(tmp_path: Path) -> None:
    stores = [CorrectionStore(tmp_path / "kept", CLASSES) for _ in range(4)]
    mask, about = np.zeros((8, 8), np.uint8), {"author": "", "time": ""}
    threads = [
        threading.Thread(target=lambda s=store: [s.keep("a", b"png", mask, about) for _ in range(3)])
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.number for one in stores[0].revisions("a")) == list(range(1, 13))


def test_a_locked_folder_is_named_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliprl.pipeline.correction.store._LOCK_SECONDS", 0.01)
    store = CorrectionStore(tmp_path, CLASSES)
    with (
        FileLock(tmp_path / ".corrections.lock"),
        pytest.raises(CliprlError, match="could not be acquired"),
    ):
        store.keep("a", b"png", np.zeros((8, 8), np.uint8), {"author": "", "time": ""})


def test_a_store_completes_what_a_killed_program_left(tmp_path: Path) -> None:
    store = CorrectionStore(tmp_path, CLASSES)
    store.keep("a", b"png", np.ones((8, 8), np.uint8), {"author": "", "time": ""})
    (tmp_path / "masks" / "a.png").unlink()
    (tmp_path / "images" / "b.png").write_bytes(b"of the user, without a mask")
    with (tmp_path / "corrections.jsonl").open("a") as file:
        file.write('{"name": "b", "revision": 1e999, "author": "", "time": ""}\n{"name": "b", "rev')
    again = CorrectionStore(tmp_path, CLASSES)
    kept = again.newest("a")
    assert kept is not None
    assert kept.all()
    assert (tmp_path / "images" / "b.png").exists()
    again.keep("c", b"png", np.ones((8, 8), np.uint8), {"author": "", "time": ""})
    assert [one.name for one in again.revisions()] == ["a", "c"]


def test_a_keep_that_was_killed_before_its_mask_is_completed(tmp_path: Path) -> None:
    store, about = CorrectionStore(tmp_path, CLASSES), {"author": "", "time": ""}
    mask = tmp_path / "masks" / "a.png"
    store.keep("a", b"png", np.zeros((8, 8), np.uint8), about)
    first = mask.read_bytes()
    store.keep("a", b"png", np.ones((8, 8), np.uint8), about)
    mask.write_bytes(first)
    os.utime(mask, ns=(0, 0))
    found = CorrectionStore(tmp_path, CLASSES).newest("a")
    assert found is not None
    assert found.all()
    mask.write_bytes(first)  # by hand, later
    found = CorrectionStore(tmp_path, CLASSES).newest("a")
    assert found is not None
    assert not found.any()


def test_a_mask_edited_by_hand_becomes_a_revision(tmp_path: Path) -> None:
    store, about = CorrectionStore(tmp_path, CLASSES), {"author": "Ann", "time": "now"}
    mask = tmp_path / "masks" / "a.png"
    for value in (0, 1, 0):
        store.keep("a", b"png", np.full((8, 8), value, np.uint8), about)
    mask.write_bytes(b"edited by hand")
    store.keep("a", b"png", np.ones((8, 8), np.uint8), about)
    assert (tmp_path / "revisions" / "a.r0004.png").read_bytes() == b"edited by hand"
    assert [(one.number, one.author) for one in store.revisions("a")][2:] == [
        (3, "Ann"),
        (4, "another program"),
        (5, "Ann"),
    ]


@pytest.mark.parametrize("classes", ["", "consecutive = true\n"])
def test_images_of_another_data_set_are_never_removed(tmp_path: Path, classes: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"no mask belongs to it")
    if classes:
        (tmp_path / "classes.toml").write_text(classes)
    with pytest.raises(UsageError, match="choose an"):
        CorrectionStore(tmp_path, CLASSES)
    assert (tmp_path / "images" / "mine.png").exists()


def test_a_folder_with_other_classes_is_refused(tmp_path: Path) -> None:
    CorrectionStore(tmp_path, CLASSES)
    with pytest.raises(UsageError, match="other classes"):
        CorrectionStore(tmp_path, CLASSES[:2])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't keep corrections"):
        CorrectionStore(tmp_path / "file" / "inside", CLASSES)


def test_next_frames_follow_the_correction(service: CorrectionService) -> None:
    hold = service.hold()
    bar = 4 * round(hold.held.seconds * 25) + 20
    service.prompt(hold.id, MaskPrompt(1, (bar, 120.0)))
    before = hold.held.seconds
    for number in range(1, 6):
        service.step(hold.id, 1)
        assert hold.held.seconds == pytest.approx(before + number / 25, abs=1e-3)
        assert labels(service, hold.id)[120, bar + 4 * number] == 1
    service.step(hold.id, -1)
    assert hold.held.seconds == pytest.approx(before + 4 / 25, abs=1e-3)


def test_corrections_fade_with_seconds_at_any_frame_rate(tmp_path: Path) -> None:
    corrector = Corrector(KnownSegmenter(), PaintingNetwork())  # type: ignore[arg-type]
    clip = write_clip(tmp_path / "clip.mp4", 1)
    frame = FileFrames(lambda seconds: open_file_at(str(clip), seconds)).at(0.0).frame
    ends = []
    for steps in (1, 4, 8):
        draft = corrector.start(frame)
        corrector.apply(draft, MaskPrompt(1, (20.0, 120.0)))
        for number in range(1, steps + 1):
            later = replace(frame, pts=number, time_base=Fraction(2, steps))
            draft = corrector.follow(draft, later)
        ends.append((draft.age, class_odds(draft.logits, [1])[30, 5]))
    own = class_odds(corrector.start(frame).logits, [1])[30, 5]
    assert [age for age, _ in ends] == pytest.approx([2.0] * 3)
    assert np.allclose([odds for _, odds in ends], ends[0][1], rtol=0.02)
    assert own < ends[0][1]


def test_frames_that_nobody_corrected_are_not_carried(service: CorrectionService) -> None:
    hold = service.hold()
    service.step(hold.id, 1)
    assert (hold.draft.prompts, hold.draft.accepted, hold.draft.carried) == ([], False, None)
    while hold.held.seconds > 0:
        service.step(hold.id, -1)
    with pytest.raises(UsageError, match="first frame"):
        service.step(hold.id, -1)


def test_every_frame_of_a_file_is_found_forwards_and_backwards(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 25)
    frames = FileFrames(lambda seconds: open_file_at(str(clip), seconds))
    held = frames.at(0.0)
    times = [held.seconds, *(one.seconds for one in frames.following(held))]
    assert np.allclose(times, np.arange(25) / 25, atol=1e-3)
    last = frames.at(times[-1])
    assert next(frames.following(last), None) is None
    for expected in reversed(times[:-1]):
        found = frames.previous(last)
        assert found is not None
        assert found.seconds == pytest.approx(expected)
        last = found
    assert frames.previous(last) is None
    with pytest.raises(UsageError, match="no frame at"):
        frames.at(9.0)


def test_frames_outside_the_body_are_not_shared(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 5)
    frames = FileFrames(lambda seconds: open_file_at(str(clip), seconds), guard=True)
    with pytest.raises(UsageError, match="outside the body"):
        frames.at(0.0)


def test_old_holds_are_let_go_and_places_are_checked(service: CorrectionService) -> None:
    first = service.hold()
    with pytest.raises(UsageError, match="outside of the image"):
        service.prompt(first.id, MaskPrompt(1, (400.0, 10.0)))
    for _ in range(MOST_HELD):
        last = service.hold()
    with pytest.raises(NotHeldError, match="hold it again"):
        service.undo(first.id)
    service.release(last.id)
    with pytest.raises(CliprlError):
        service.keep(last.id, "")


def test_held_frames_have_a_byte_limit(service: CorrectionService, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = service.hold(), service.hold()
    one = second.kept_bytes
    assert one > HEIGHT * WIDTH * 3 // 2
    monkeypatch.setattr("cliprl.pipeline.correction.service.MOST_BYTES", int(4.5 * one))
    service.prompt(second.id, SHAFT)
    for _ in range(6):
        service.step(second.id, 1)
    assert second.kept_bytes <= 4.5 * one
    with pytest.raises(NotHeldError, match="hold it again"):
        service.undo(first.id)
    for _ in range(6):
        service.step(second.id, -1)
    assert not second.followed


def test_grabcut_corrects_with_negative_clicks_alone(tmp_path: Path) -> None:
    corrector = Corrector(KnownSegmenter(), PromptedNetwork(open_promptable("grabcut")))  # type: ignore[arg-type]
    clip = write_clip(tmp_path / "clip.mp4", 2)
    frames = FileFrames(lambda seconds: open_file_at(str(clip), seconds))
    draft = corrector.start(frames.at(0.0).frame)
    corrector.apply(draft, MaskPrompt(1, (10.0, 10.0), False))
    corrector.apply(draft, MaskPrompt(1, (0.0, 90.0, 60.0, 150.0)))
    assert len(draft.history) == 2


def test_live_frames_are_held_while_the_display_goes_on(tmp_path: Path) -> None:
    with Player() as player:
        player.broadcast.wait_newer(-1, 60)
        service = service_of(player.broadcast, tmp_path / "none", tmp_path / "kept", known_bundle(tmp_path / "b"))
        hold = service.hold()
        service.prompt(hold.id, SHAFT)
        times = [hold.held.seconds]
        for _ in range(10):
            service.step(hold.id, 1)
            times.append(hold.held.seconds)
        assert times == sorted(set(times))
        with pytest.raises(UsageError, match="last frame"):
            service.step(hold.id, 1)
        for _ in range(10):
            service.step(hold.id, -1)
        assert hold.held.seconds == times[0]
        with pytest.raises(UsageError, match="first frame"):
            service.step(hold.id, -1)


def test_released_live_frames_leave_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliprl.pipeline.correction.frames._WAIT", 0.01)
    with Player() as player:
        shown = player.broadcast.wait_newer(-1, 60)
    assert shown is not None
    stalled = Broadcast()
    stalled.publish(shown)
    before = set(threading.enumerate())
    frames = LiveFrames(stalled)
    (thread,) = set(threading.enumerate()) - before
    assert thread.is_alive()
    del frames
    thread.join(60)
    assert not thread.is_alive()


def test_corrections_open_the_demo_scene_that_is_displayed(tmp_path: Path) -> None:
    given = {
        "corrections": tmp_path,
        "correct_with": "",
        "web": "",
        "window": False,
        "guard": True,
        "stream_index": None,
    }
    options = CorrectionOptions.of_command(given | {"source": "demo:"})
    assert options is not None
    assert open_source(options.source).info.frames is None, "it has no end on the page"
