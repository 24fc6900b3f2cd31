"""The procedural scene: a pure function of seed and time, whose labels are true."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer
from cliprl.pipeline.synthetic.classes import CLASPER, KIDNEY, PROBE, SHAFT, SUCTION, WRIST

TISSUE = {index for index, spec in enumerate(SCENE_CLASSES) if spec.kind != "instrument"}


def test_classes_are_those_of_endovis_2018():
    assert [spec.name for spec in SCENE_CLASSES][:3] == ["background-tissue", "instrument-shaft", "instrument-clasper"]
    assert len(SCENE_CLASSES) == 12
    assert SCENE_CLASSES[11].color == (12, 255, 141)
    assert len({spec.color for spec in SCENE_CLASSES}) == 12
    assert all(3 <= len(spec.prompts) <= 5 for spec in SCENE_CLASSES)
    assert {spec.kind for spec in SCENE_CLASSES} == {"background", "tissue", "instrument"}


@pytest.mark.parametrize("seed", [0, 7, 19])
def test_same_seed_and_time_same_picture(seed):
    one, two = SceneRenderer(seed, 96, 128), SceneRenderer(seed, 96, 128)
    one.render(3.0)  # what was rendered before must not matter
    for first, second in zip(one.render(1.5), two.render(1.5), strict=True):
        np.testing.assert_array_equal(first, second)
    assert one.caption(1.5) == two.caption(1.5)


@pytest.mark.parametrize("seed", [3, 11, 29])
def test_a_frame_without_labels_is_the_same_frame(seed):
    scene = SceneRenderer(seed, 96, 128)
    np.testing.assert_array_equal(scene.render_frame(1.5), scene.render(1.5)[0])


# Mean of R, G and B, and the percentage of pixels that are not background, of a scene after a second.
MEANS = {
    1: (119.8, 81.0, 69.5, 19.8),
    3: (82.7, 64.3, 56.0, 19.1),
    7: (138.2, 84.3, 54.4, 23.8),
    19: (195.4, 166.8, 144.3, 29.0),
    42: (80.8, 66.4, 57.1, 23.0),
    700068: (130.4, 84.7, 87.4, 25.5),
}


@pytest.mark.parametrize("seed", MEANS)
def test_a_seed_keeps_its_scene(seed):
    """Shipped networks and tests depend on the scenes: a change of these means needs new training data."""
    rgb, labels = SceneRenderer(seed, 128, 160).render(1.0)
    found = [*rgb.mean((0, 1)), (labels > 0).mean() * 100]
    np.testing.assert_allclose(found, MEANS[seed], atol=0.6)


def test_seeds_differ():
    means = [SceneRenderer(seed, 64, 80).render(0)[0].mean((0, 1)) for seed in (1, 2, 3, -1)]
    assert len({tuple(np.round(mean)) for mean in means}) == 4


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(32, 150), st.integers(32, 150), st.floats(0, 1000))
def test_any_size_and_time(seed, height, width, t):
    scene = SceneRenderer(seed, height, width)
    rgb, labels = scene.render(t)
    rgba, own = scene.render_instruments(t)
    assert rgb.shape == (height, width, 3)
    assert rgba.shape == (height, width, 4)
    assert labels.shape == own.shape == (height, width)
    assert rgb.dtype == rgba.dtype == labels.dtype == own.dtype == np.uint8
    assert labels.max() < len(SCENE_CLASSES)
    assert not set(np.unique(own)) & (TISSUE - {0})


@pytest.mark.parametrize("seed", range(8))
def test_it_is_video(seed):
    """A frame later little has moved; seconds later much has, and nothing stands still for ever."""
    scene = SceneRenderer(seed, 128, 160)
    (_, now), (_, soon), (_, later) = scene.render(2.0), scene.render(2.04), scene.render(5.0)
    step, leap = np.mean(now != soon), np.mean(now != later)
    assert step < 0.04
    blurred = [cv2.GaussianBlur(scene.render(t)[0], (0, 0), 3).astype(float) for t in (2.0, 2.04, 5.0)]
    assert np.abs(blurred[0] - blurred[1]).mean() < 4
    assert np.abs(blurred[0] - blurred[2]).mean() > np.abs(blurred[0] - blurred[1]).mean()
    assert leap >= step


def _bare(seed: int) -> tuple[SceneRenderer, SceneRenderer]:
    """A scene without the shadows of its instruments, and the same without the instruments."""
    scene, empty = SceneRenderer(seed, 256, 320), SceneRenderer(seed, 256, 320)
    scene._shadow = 0.0
    empty._instruments, empty._things = [], []
    return scene, empty


def test_instruments_are_drawn_where_their_labels_are():
    """Only near instrument labels does the picture differ from that of the bare tissue; beneath them it nearly always does."""
    tried, differing = 0, []
    for seed in range(12):
        scene, empty = _bare(seed)
        if not scene._instruments or any(tool.softness for tool in scene._instruments):
            continue
        (rgb, labels), (plain, tissue) = scene.render(1.0), empty.render(1.0)
        drawn = np.isin(labels, list(TISSUE), invert=True)
        change = np.abs(cv2.blur(rgb, (3, 3)).astype(int) - cv2.blur(plain, (3, 3))).max(2)
        reach = cv2.dilate(drawn.astype(np.uint8), np.ones((71, 71))) > 0  # lens blur and JPEG blocks spread a little
        assert change[~reach].max(initial=0) <= 3
        np.testing.assert_array_equal(labels[~drawn], tissue[~drawn])
        if drawn.any():
            differing.append(np.mean(change[drawn] > 8))
        tried += 1
    assert tried >= 4
    assert np.mean(differing) > 0.85


def test_alpha_covers_the_labels():
    for seed in range(10):
        scene = SceneRenderer(seed, 128, 160)
        rgba, labels = scene.render_instruments(0.7)
        if any(tool.softness for tool in scene._instruments):
            continue
        near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3))) > 0  # where soft borders of two parts overlap
        assert rgba[labels > 0, 3].min(initial=255) > 126
        assert rgba[~near, 3].max(initial=0) < 128


def test_nothing_is_labelled_outside_the_scope():
    seen = 0
    for seed in range(12):
        scene = SceneRenderer(seed, 96, 128)
        mask = scene._scope.mask(0.5)
        if mask is None:
            continue
        rgb, labels = scene.render(0.5)
        assert not labels[mask < 128].any()
        assert rgb[mask == 0].mean() < 40
        seen += 1
    assert seen >= 4


def test_every_class_appears_and_some_scenes_are_empty():
    counts, empty = np.zeros(len(SCENE_CLASSES), int), 0
    for seed in range(150):
        labels = SceneRenderer(seed, 64, 80).render(0)[1]
        present = np.unique(labels)
        counts[present] += 1
        empty += not set(present.tolist()) - TISSUE
    assert counts.min() >= 2, dict(zip([spec.name for spec in SCENE_CLASSES], counts.tolist(), strict=True))
    assert 0.05 < empty / 150 < 0.4


def test_captions_name_what_is_there():
    named = {PROBE: "ultrasound probe", SUCTION: "suction tube", KIDNEY: "kidney"}
    found = dict.fromkeys(named, 0)
    for seed in range(150):
        scene = SceneRenderer(seed, 64, 80)
        labels, text = scene.render(0)[1], scene.caption(0)
        shares = np.bincount(labels.ravel(), minlength=12) / labels.size
        assert text.startswith("a laparoscopic view of ")
        for label, words in named.items():
            if (label == KIDNEY and shares[label] > 0.4) or (label != KIDNEY and shares[label] > 0.01):
                assert words in text, (seed, text)
                found[label] += 1
            if shares[label] == 0 and label != KIDNEY:
                assert words not in text, (seed, text)
        if not set(np.flatnonzero(shares).tolist()) - TISSUE:
            assert " with " not in text
    assert found[PROBE]
    assert found[SUCTION]


def test_instruments_come_thin_and_huge():
    shares = []
    for seed in range(60):
        labels = SceneRenderer(seed, 64, 80).render(0)[1]
        shares.append(float(np.isin(labels, [SHAFT, CLASPER, WRIST, SUCTION, PROBE]).mean()))
    assert max(shares) > 0.35
    assert sum(0 < share < 0.06 for share in shares) >= 5
