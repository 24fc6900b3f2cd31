"""Damage of a frame: what counts as damage, how the input is restored, and what a frame without damage is spared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from fake_engine import FakeEngine
from numpy.typing import NDArray

from cliprl.engines import Bundle, CompiledBundle, RestorationSpec, open_bundle
from cliprl.pipeline import Segmenter
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.correction.corrector import Corrector, HeadNetwork, displayed_logits
from cliprl.pipeline.segment import refinement, temporal_prior
from cliprl.pipeline.segment.decision import segmentation_of, softmax
from cliprl.pipeline.segment.refinement import RefinementLoop
from cliprl.pipeline.segment.result_memory import ResultMemory
from cliprl.pipeline.segment.temporal_prior import InputRestoration, TemporalPrior, estimate_damage, quantile

Image = NDArray[np.uint8]
SPEC = RestorationSpec(noise=0.03, strength=0.8, light=100.0, haze=80.0, clearing=0.8, least=0.05)
SIZE = (256, 320)


def scene(seed: int = 0) -> Image:
    """Smooth tissue with a bright bar, between dark and light."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(20, 190, (9, 11, 3)).astype(np.float32)
    image = cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    x, y = (int(rng.integers(40, n - 80)) for n in (SIZE[1], SIZE[0]))
    image[y : y + 30, x : x + 60] = 215
    return np.clip(image, 12, 240).astype(np.uint8)


def damaged(image: Image, kind: str, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).standard_normal(image.shape)
    changed = {
        "noise": image + 30 * noise,
        "darkness": 0.2 * image + 8 * noise,
        "haze": 0.5 * image + 95.0,
        "blur": cv2.GaussianBlur(image, (0, 0), 4),
        "none": image,
    }[kind]
    return np.clip(changed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "expected"), [("noise", True), ("darkness", True), ("haze", True), ("blur", False), ("none", False)]
)
def test_noise_darkness_and_haze_count_as_damage(kind: str, expected: bool) -> None:
    image = damaged(scene(), kind)
    before = image.copy()
    assert InputRestoration(SPEC)(image) is expected
    assert np.array_equal(image, before) is not expected


@pytest.mark.parametrize("kind", ["noise", "haze"])
def test_a_restored_input_is_nearer_to_the_clear_one(kind: str) -> None:
    clear, image = scene().astype(float), damaged(scene(), kind)
    before = np.abs(image - clear).mean()
    InputRestoration(SPEC)(image)
    assert np.abs(image - clear).mean() < 0.6 * before


def smoky(image: Image) -> Image:
    """A cloud over one half, as dense as smoke gets; none over the other."""
    share = 0.8 / (1 + np.exp((np.arange(image.shape[1]) - image.shape[1] / 2) / 20))[None, :, None]
    return np.clip(image * (1 - share) + 215 * share, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("border", [0, 40])
def test_a_cloud_is_cleared_where_it_is(border: int) -> None:
    clear = scene()
    clear[:, :border] = 0
    image = smoky(clear)
    image[:, :border] = 0
    even, uneven = image.copy(), image.copy()
    for restored_image, spec in ((even, SPEC), (uneven, replace(SPEC, uneven=True))):
        assert InputRestoration(replace(spec, haze=1.0))(restored_image)
    before, after_even, after = (np.abs(one - clear.astype(float)).mean() for one in (image, even, uneven))
    assert after < min(0.7 * before, after_even)
    assert not uneven[:, :border].any()


def test_an_input_as_bright_as_dense_haze_stays_finite() -> None:
    image = np.full((*SIZE, 3), 255, np.uint8)
    assert InputRestoration(replace(SPEC, clearing=0.99, uneven=True))(image)
    assert np.ptp(image) <= 1


def test_a_dark_noisy_input_is_brightened() -> None:
    image = damaged(scene(), "darkness")
    InputRestoration(SPEC)(image)
    found = estimate_damage(image)
    assert found.mean == pytest.approx(SPEC.light, rel=0.2)
    assert found.noise < SPEC.noise * found.mean


def test_a_dark_input_without_noise_is_brightened_but_not_refined() -> None:
    dark = (0.3 * scene()).astype(np.uint8)
    image = dark.copy()
    assert not InputRestoration(SPEC)(image)
    np.testing.assert_array_equal(image, dark)
    assert not InputRestoration(replace(SPEC, dark=55.0))(image)
    assert estimate_damage(image).mean == pytest.approx(SPEC.light, rel=0.02)
    clear = scene()
    assert not InputRestoration(replace(SPEC, dark=55.0))(clear)
    np.testing.assert_array_equal(clear, scene())


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_color_has_no_noise(value: int) -> None:
    assert estimate_damage(np.full((*SIZE, 3), value, np.uint8)).noise == 0


def test_black_surroundings_do_not_hide_noise() -> None:
    image = damaged(scene(), "noise")
    image[:, :200] = 0
    assert estimate_damage(image).noise > 20


def test_larger_input_counts_as_damaged_as_at_the_fitted_size() -> None:
    large = cv2.resize(scene(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).standard_normal(large.shape)
    fine = np.clip(large + 6 * noise, 0, 255).astype(np.uint8)
    assert InputRestoration(SPEC)(fine.copy())
    assert not InputRestoration(SPEC, SIZE)(fine.copy())
    coarse = np.clip(large + 40 * noise, 0, 255).astype(np.uint8)
    restored = coarse.copy()
    assert InputRestoration(SPEC, SIZE)(restored)
    assert np.abs(restored - large.astype(float)).mean() < 0.7 * np.abs(coarse - large.astype(float)).mean()


def test_no_filter_runs_past_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    restore, clock = InputRestoration(SPEC), [100.0]
    for module in (refinement, temporal_prior):
        monkeypatch.setattr(module, "time", type("Clock", (), {"monotonic": lambda: clock[0]}))

    def slow(image: Image, out: Image, *_: float) -> None:
        clock[0] += 0.5
        out[:] = 0

    monkeypatch.setattr(cv2, "fastNlMeansDenoisingColored", slow)
    assert restore(damaged(scene(), "noise"))
    image = damaged(scene(), "noise")
    assert restore(image, clock[0] + 0.1)
    assert image.any()


class Raise(FakeEngine):
    """A policy that raises the last class everywhere."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        refined = inputs["logits"].copy()
        refined[:, -1] += 50
        return {"refined": refined, "moved": np.float32(1)}


def test_a_class_without_probability_is_not_raised() -> None:
    base = np.random.default_rng(0).normal(scale=3, size=(1, 4, 8, 10)).astype(np.float32)
    refined = RefinementLoop(Raise(), 2, np.eye(4, dtype=np.float32), 0.05)(base, base, base).logits
    possible = softmax(base)[0, -1] >= 0.05
    assert 0 < possible.sum() < possible.size
    np.testing.assert_array_equal(refined[0].argmax(0) == 3, possible)


@pytest.mark.parametrize("kind", ["none", "noise", "darkness"])
def test_another_scene_has_no_prior(kind: str) -> None:
    prior = TemporalPrior()
    assert not prior.is_related(damaged(scene(0), kind, 0))
    assert prior.is_related(damaged(np.roll(scene(0), 3, 1), kind, 1))
    assert not prior.is_related(damaged(scene(1), kind, 2))
    assert prior.is_related(damaged(scene(1), kind, 3))


def test_an_undamaged_image_is_compared_with_by_the_next() -> None:
    prior = TemporalPrior()
    assert prior.is_related(scene(0), compare=False)
    assert prior.is_related(scene(1), compare=False)
    assert prior.is_related(np.roll(scene(1), 3, 1))
    assert not prior.is_related(scene(0))


@pytest.mark.parametrize("count", [1, 2, 9, 10, 101])
def test_a_quantile_of_integers_is_that_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    for share in (0.0, 0.1, 0.5, 1.0):
        assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)))


def restored(spec: RestorationSpec = SPEC) -> Bundle:
    """The shipped bundle with a gate."""
    bundle = open_bundle("small")
    return replace(bundle, manifest=replace(bundle.manifest, restoration=spec))


def frame_of(image: Image, index: int = 0) -> Frame:
    frame = Frame(*allocate_planes(*image.shape[:2]), index, Fraction(1, 25), index)
    frame.luma[:], frame.chroma[:] = image.mean(2), 128
    return frame


def test_unrelated_damaged_stills_give_what_each_alone_gives() -> None:
    stills = [frame_of(damaged(scene(n), "noise", n), n) for n in range(3)]
    segmenter = Segmenter(restored(replace(SPEC, memory=0.7)), precision="f32")
    listed = [segmenter(still).probabilities.copy() for still in stills]
    for still, expected in zip(stills, listed, strict=True):
        segmenter.reset()
        found = segmenter(still)
        assert found.steps > 0
        np.testing.assert_array_equal(found.probabilities, expected)


def test_a_frame_without_damage_takes_no_step() -> None:
    frame, segmenter = frame_of(scene()), Segmenter(restored(), precision="f32")
    base = Segmenter(restored(), precision="f32", steps=0)(frame)
    for _ in range(2):
        found = segmenter(frame)
        assert found.steps == 0
        np.testing.assert_array_equal(found.probabilities, base.probabilities)


def test_labels_are_the_first_of_the_largest_logits() -> None:
    view = full_viewport(64, 80, 64, 80)
    logits = np.random.default_rng(0).integers(-2, 3, (5, 16, 20)).astype(np.float32)
    found = segmentation_of(logits, view, 0, 0.0)
    np.testing.assert_array_equal(found.labels, logits.argmax(axis=0))
    assert found.confidence == pytest.approx(float(softmax(logits[None])[0].max(axis=0).mean()))
    logits[:, 3, 4] = np.nan
    assert segmentation_of(logits, view, 0, 0.0).labels[3, 4] == 0


class StubEncoder(FakeEngine):
    """Gives the same logits for every image: class 1 in the middle."""

    def __init__(self) -> None:
        self.logits = np.zeros((1, 12, 64, 80), np.float32)
        self.logits[0, 1, 24:40, 30:50] = 1

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"features": self.logits, "logits": self.logits}


class Grow(FakeEngine):
    """A policy that lets what the prior shows grow by a cell."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        refined = inputs["logits"].copy()
        refined[0, 1] = np.maximum(refined[0, 1], cv2.dilate(inputs["prior"][0, 1], np.ones((3, 3), np.uint8)))
        return {"refined": refined, "moved": np.float32(1)}


def test_nothing_grows_in_a_thousand_frames_of_a_still() -> None:
    engines = CompiledBundle(StubEncoder(), Grow(), {})
    segmenter = Segmenter(restored(), steps=1, engines=engines)
    still, areas = frame_of(damaged(scene(), "haze")), []
    for _ in range(1000):
        found = segmenter(still)
        assert found.steps == 1
        areas.append(int((found.likeliest.labels == 1).sum()))
    assert max(areas) <= 1.05 * areas[1]
    assert areas[-1] == areas[1] > 0


@pytest.mark.parametrize("kind", ["none", "noise", "darkness", "haze"])
def test_a_segmentation_carries_the_measured_damage(kind: str) -> None:
    engines = CompiledBundle(StubEncoder(), Raise(), {})
    found = Segmenter(restored(), steps=1, engines=engines)(frame_of(damaged(scene(), kind))).damage
    clear = Segmenter(restored(), steps=1, engines=engines)(frame_of(scene())).damage
    assert found is not None
    assert clear is not None
    rises = (found.noise > 2 * clear.noise + 1, found.mean < 0.5 * clear.mean, found.haze > clear.haze + 60)
    expected = {
        "none": (False, False, False),
        "noise": (True, False, False),
        "darkness": (True, True, False),
        "haze": (False, False, True),
    }
    assert rises == expected[kind]


def test_a_frame_without_estimate_carries_none() -> None:
    engines = CompiledBundle(StubEncoder(), Raise(), {})
    assert Segmenter(restored(), steps=0, engines=engines)(frame_of(scene())).damage is None
    black = frame_of(np.zeros((*SIZE, 3), np.uint8))
    assert Segmenter(restored(), steps=1, engines=engines)(black).damage is None


def test_corrections_of_damaged_frames_start_from_the_displayed_mask() -> None:
    engines = CompiledBundle(StubEncoder(), Raise(), {})
    segmenter, still = Segmenter(restored(), steps=1, engines=engines), frame_of(damaged(scene(), "haze"))
    displayed = segmenter(still).labels.copy()
    assert (displayed == 11).any()
    draft = Corrector(segmenter, HeadNetwork(None)).start(still)  # type: ignore[arg-type]
    np.testing.assert_array_equal(draft.segmentation.labels, displayed)


def test_logits_of_a_correction_leave_out_absent_classes() -> None:
    logits = np.zeros((3, 8, 10), np.float32)
    logits[2], logits[1] = 3, 2
    found = segmentation_of(logits, full_viewport(256, 320, 256, 320), 0, 0.0)
    found.labels[:4] = 1
    np.testing.assert_array_equal(displayed_logits(found).argmax(0), found.labels)


def noisy_logits(seed: int, cells: int = 0) -> NDArray[np.float32]:
    """A disc of class 1 under noise, `cells` to the right."""
    y, x = np.indices((64, 80))
    logits = np.random.default_rng(seed).normal(scale=1.5, size=(1, 3, 64, 80)).astype(np.float32)
    inside = np.hypot(x - 30 - cells, y - 32) < 12
    logits[0, 0] += 3 * ~inside
    logits[0, 1] += 3 * inside
    return logits


def test_results_of_noisy_frames_move_with_the_image() -> None:
    memory, texture = (
        ResultMemory(replace(SPEC, memory=0.5)),
        np.random.default_rng(0).integers(0, 255, (24, 30, 3)).astype(np.uint8),
    )
    image = np.asarray(cv2.resize(texture, SIZE[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    for step in range(8):
        alone = noisy_logits(step, 2 * step)
        mixed = memory.mix(alone, np.roll(image, 8 * step, 1), follows=True)
    truth = np.hypot(*np.indices((64, 80)) - np.array([32, 44])[:, None, None]) < 12
    wrong = [int(((one[0].argmax(0) == 1) != truth).sum()) for one in (alone, mixed)]
    assert wrong[1] < 0.4 * wrong[0]


def test_another_scene_takes_nothing_from_the_last_result() -> None:
    memory, one, other = ResultMemory(replace(SPEC, memory=0.7)), noisy_logits(0), noisy_logits(1)
    np.testing.assert_array_equal(memory.mix(one, scene(0), False), one)
    np.testing.assert_array_equal(memory.mix(other, scene(1), False), other)
    assert not np.array_equal(memory.mix(one, scene(1), True), one)
    tiny = np.ones((1, 3, 4, 4), np.float32)  # no motion can be measured
    np.testing.assert_array_equal(memory.mix(tiny, scene(0), True) + memory.mix(2 * tiny, scene(0), True), 3 * tiny)


def test_nothing_grows_in_the_memory_of_a_still() -> None:
    memory, still = ResultMemory(replace(SPEC, memory=0.7)), scene()
    logits = np.zeros((1, 3, 64, 80), np.float32)
    logits[0, 1, 24:40, 30:50] = 1
    for _ in range(200):
        mixed = memory.mix(logits, still, True)
    np.testing.assert_allclose(mixed, logits, atol=1e-5)


def remembering(encoder: FakeEngine) -> Segmenter:
    bundle = restored(replace(SPEC, memory=0.9))
    return Segmenter(
        replace(bundle, manifest=replace(bundle.manifest, steps=0)), engines=CompiledBundle(encoder, Raise(), {})
    )


@pytest.mark.parametrize(("between", "kept"), [("noise", True), ("none", False)])
def test_only_successive_noisy_frames_share_their_results(between: str, kept: bool) -> None:
    encoder = StubEncoder()
    segmenter = remembering(encoder)
    for number, kind in enumerate(("noise", between, "noise")):
        if number == 2:
            encoder.logits = np.zeros_like(encoder.logits)
        found = segmenter(frame_of(damaged(scene(), kind, number), number))
    assert bool(np.ptp(found.probabilities[1]) > 1e-3) is kept


@pytest.mark.parametrize("numbers", [(1, 3, 2), (1, 1, 2)])
def test_a_followed_frame_takes_nothing_uncorrected(numbers: tuple[int, int, int]) -> None:
    encoder = StubEncoder()
    segmenter = remembering(encoder)
    corrector = Corrector(segmenter, HeadNetwork(None))  # type: ignore[arg-type]
    first, other, last = (frame_of(damaged(scene(), "noise", number), number) for number in numbers)
    draft = corrector.start(first)
    segmenter(other)
    encoder.logits = np.zeros_like(encoder.logits)
    assert np.ptp(corrector.follow(draft, last).logits[1]) == 0
