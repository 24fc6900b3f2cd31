"""What training sees: label codes, views, corruption, the larynx set's partial labels, compositions, batches."""

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.engines import CliprlError, UsageError, available_cpus
from cliprl.models.data.augmentation.augment import LABEL_STRIDE, Geometry, Photometry
from cliprl.models.data.augmentation.copy_paste import CopyPasteDataset
from cliprl.models.data.augmentation.endoscope_corruptions import CORRUPTIONS, apply_corruption
from cliprl.models.data.batch_loader import BatchLoader, Mixture, labelled_batch, pair_batch
from cliprl.models.data.io import read_npz
from cliprl.models.data.label_mapping import RelabelledDataset, with_partial_labels
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Sample, allowed_classes
from cliprl.models.data.sets import rendered
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.data.sets.vocalfolds import UNSURE, VocalFolds
from cliprl.models.training.parallel import process_cpus
from cliprl.pipeline.synthetic import SCENE_CLASSES

SIZE = (64, 80)


def tissue(folder: Path) -> RelabelledDataset:
    """The vocal-fold set as the mixture learns from it."""
    return with_partial_labels(VocalFolds(folder), SCENE_CLASSES, UNSURE)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> RenderedScenes:
    which = RenderedSpec(first=7, count=3, frames=2, height=96, width=120)
    return RenderedScenes(which, tmp_path_factory.mktemp("scenes"), 1, lambda done, total: None)


@pytest.fixture(scope="module")
def larynx(tmp_path_factory: pytest.TempPathFactory) -> RelabelledDataset:
    """A made-up set in the real one's layout: each class a vertical stripe."""
    folder = tmp_path_factory.mktemp("larynx")
    for part in ("images", "masks"):
        (folder / part / "seq1").mkdir(parents=True)
    mask = np.repeat(np.arange(7, dtype=np.uint8), 10)[None].repeat(70, 0)
    for name in ("0001", "0002"):
        cv2.imwrite(str(folder / "images" / "seq1" / f"{name}.jpg"), np.full((70, 70, 3), 90, np.uint8))
        cv2.imwrite(str(folder / "masks" / "seq1" / f"{name}.png"), mask)
    return tissue(folder)


def test_label_codes_stand_for_the_right_classes() -> None:
    table = allowed_classes(SCENE_CLASSES)
    for code, spec in enumerate(SCENE_CLASSES):
        assert table[code].sum() == 1
        assert table[code, code]
        assert table[INSTRUMENT, code] == (spec.kind == "instrument") == (not table[NOT_INSTRUMENT, code])
    assert table[IGNORE].all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_labels_stay_on_what_they_label(seed: int) -> None:
    """A picture that shows its own labels still does after any view, but for cells on a border."""
    rng = np.random.default_rng(seed)
    coarse = np.zeros((12, 15), np.uint8)
    coarse[2:9, 4:11] = 1
    labels = cv2.resize(coarse, (150, 120), interpolation=cv2.INTER_NEAREST)
    sample = Sample(np.repeat(200 * labels[..., None], 3, 2), labels, "s")
    geometry = Geometry.draw(rng, (120, 150), SIZE)
    image, cells = geometry.apply(sample, SIZE)
    seen = cv2.resize(image, None, fx=1 / LABEL_STRIDE, fy=1 / LABEL_STRIDE, interpolation=cv2.INTER_AREA)[..., 0]
    sure = (seen == 0) | (seen == 200)
    known = cells != NOT_INSTRUMENT
    assert (sure & known).mean() > 0.2
    wrong = (seen > 100) != (cells == 1)
    assert (wrong & sure & known).mean() < 0.005


def test_the_stretched_view_shows_the_whole_image() -> None:
    labels = np.zeros((120, 150), np.uint8)
    labels[:, 75:] = labels[60:, :75] = 1
    image, cells = Geometry.stretched((120, 150), SIZE).apply(
        Sample(np.repeat(labels[..., None], 3, 2), labels, "s"), SIZE
    )
    expected = cv2.resize(labels, (cells.shape[1], cells.shape[0]), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(cells, expected)
    assert image.shape == (*SIZE, 3)


def test_corruption_grows_with_severity_and_is_nothing_at_zero() -> None:
    base = cv2.resize(np.random.default_rng(0).integers(40, 220, (16, 20, 3), np.uint8), (160, 128))
    image = np.asarray(base, np.uint8)
    for kind in CORRUPTIONS:
        assert apply_corruption(image, kind, 0, np.random.default_rng(1)) is image
        change = [
            np.abs(apply_corruption(image, kind, s, np.random.default_rng(1)).astype(int) - image).mean()
            for s in (1, 3, 5)
        ]
        assert 0.2 < change[0] < change[1] < change[2], kind


def test_the_larynx_set_says_only_what_it_knows(larynx: RelabelledDataset) -> None:
    sample = larynx[1]
    assert sample.sequence == "seq1"
    codes = [int(sample.labels[5, 10 * c + 5]) for c in range(7)]
    tissue = NOT_INSTRUMENT
    assert codes == [IGNORE, tissue, tissue, tissue, tissue, INSTRUMENT, IGNORE]


def test_a_larynx_set_that_is_not_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no vocalfolds frames"):
        tissue(tmp_path)
    (tmp_path / "images" / "seq1").mkdir(parents=True)
    (tmp_path / "images" / "seq1" / "0009.jpg").write_bytes(b"")
    with pytest.raises(CliprlError, match=r"0009\.jpg has no mask"):
        tissue(tmp_path)


def test_scenes_are_drawn_once_and_read_back(scenes: RenderedScenes) -> None:
    def no_drawing(done: int, total: int) -> None:
        raise AssertionError("drawn again")

    again = RenderedScenes(scenes.which, scenes.folder.parent, 1, no_drawing)
    assert len(again) == 6
    assert again[3].sequence == again[2].sequence != again[1].sequence
    assert again[0].image.shape == (96, 120, 3)
    assert again[0].labels.max() < len(SCENE_CLASSES)
    assert again.caption(0)


def test_a_composition_keeps_tissue_labels_beneath_and_instrument_labels_above(
    scenes: RenderedScenes, larynx: RelabelledDataset
) -> None:
    composed = CopyPasteDataset(larynx, scenes, 0)
    seen = set()
    for index in range(len(composed)):
        layer, labels = scenes.instruments(index % len(scenes))
        sample = composed[index]
        np.testing.assert_array_equal(composed[index].image, sample.image)
        exact = sample.labels[sample.labels < len(SCENE_CLASSES)]
        assert exact.size in (0, (layer[..., 3] >= 128).sum())
        assert set(np.unique(exact)) <= set(np.unique(labels))
        seen |= set(np.unique(sample.labels))
    assert {NOT_INSTRUMENT, INSTRUMENT, IGNORE} <= seen


def test_a_batch_depends_on_its_step_alone(scenes: RenderedScenes, larynx: RelabelledDataset) -> None:
    mixture = Mixture([scenes, larynx], [0.5, 0.5])

    def make(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return labelled_batch(mixture, 2, SIZE, 3, step)

    ahead = BatchLoader(make)
    for step in (5, 6):
        image, labels = ahead(step)
        assert image.shape == (2, *SIZE, 3)
        assert labels.shape == (2, SIZE[0] // LABEL_STRIDE, SIZE[1] // LABEL_STRIDE)
        assert torch.equal(image, make(step)[0])
        assert torch.equal(labels, make(step)[1])
    ahead.close()
    assert not torch.equal(make(5)[0], make(6)[0])


def test_batches_use_the_threads_requested_or_all_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def threads_of(workers: int) -> int:
        """How many batches are being made at a time, where each waits for all the others."""
        expected = workers or process_cpus()
        together = threading.Barrier(expected)
        ahead = BatchLoader(lambda step: together.wait(10) if step < expected else 0, workers)
        ahead(0)
        ahead.close()
        return expected

    assert threads_of(3) == 3
    assert threads_of(0) == available_cpus()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(available_cpus()))
    assert threads_of(0) == 1


def test_a_pair_shows_one_view_at_two_moments(scenes: RenderedScenes) -> None:
    pairs = pair_batch(Mixture([scenes], [1.0]), 6, SIZE, 0, 0, 0.0)
    difference = (pairs.before.float() - pairs.now.float()).abs().mean((1, 2, 3))
    others = (pairs.before.float() - pairs.now.roll(1, 0).float()).abs().mean((1, 2, 3))
    assert (difference > 0).all()
    assert difference.mean() < 0.6 * others.mean()
    assert pairs.first.dtype == torch.bool


def test_the_endoscope_circle_is_black_and_holds_no_instrument() -> None:
    rng = np.random.default_rng(0)
    camera = Photometry.draw(rng)
    while camera.circle is None:
        camera = Photometry.draw(rng)
    image, labels = camera.apply(np.full((*SIZE, 3), 128, np.uint8), np.ones((16, 20), np.uint8), rng)
    corners = labels[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == NOT_INSTRUMENT).any()
    assert image[0, 0].max() < 40 or image[-1, -1].max() < 40


def test_threads_read_archives_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python 3.11 two threads that parse NumPy headers at once fail at random (SystemError)."""
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.arange(4))
    load, inside, together = np.load, threading.Semaphore(1), []

    class Alone:
        def __init__(self, path: Path) -> None:
            self.file = load(path)

        def __enter__(self) -> np.lib.npyio.NpzFile:
            together.append(not inside.acquire(blocking=False))
            return self.file

        def __exit__(self, *_: object) -> None:
            inside.release()
            self.file.close()

    monkeypatch.setattr(np, "load", Alone)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_npz(tmp_path / "a.npz", ("y", "x")), range(40)))
    assert not any(together)
    assert all([len(array) for array in arrays] == [4, 3] for arrays in found)


def test_a_rendering_process_that_is_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*rest: object, **named: object) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr(rendered, "ProcessPoolExecutor", end)
    with pytest.raises(CliprlError, match=r"ended early; .*set data\.workers=1 .*__main__"):
        RenderedScenes(RenderedSpec(7, 2, 1, 64, 80), tmp_path, 1, lambda done, total: None)
