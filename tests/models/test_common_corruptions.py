"""The published corruptions: their constants where they can be measured, and what holds for all of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.models.data.augmentation.common_corruptions.blur import smear
from cliprl.models.data.augmentation.common_corruptions.kinds import (
    COMMON,
    FURTHER,
    SEVERITIES,
    apply_common_corruption,
)
from cliprl.models.data.augmentation.common_corruptions.weather import plasma

Picture = NDArray[np.uint8]
ALL = {**COMMON, **FURTHER}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def scene() -> Picture:
    """A picture with edges, texture, colour and shade, of odd size."""
    from cliprl.pipeline.synthetic import SceneRenderer

    return SceneRenderer(3, 160, 208).render(1.0)[0][:151, :203].copy()


def gray(level: int = 128, size: int = 200) -> Picture:
    return np.full((size, size, 3), level, np.uint8)


def damage(scene: Picture, kind: str, severity: int) -> float:
    return float(
        np.mean(
            [
                np.abs(apply_common_corruption(scene, kind, severity, rng(s)).astype(int) - scene).mean()
                for s in range(4)
            ]
        )
    )


def test_there_are_fifteen_and_four() -> None:
    assert (len(COMMON), len(FURTHER), len(ALL)) == (15, 4, 19)


@pytest.mark.parametrize("kind", sorted(ALL))
def test_every_kind(kind: str, scene: Picture) -> None:
    kept = scene.copy()
    for severity in SEVERITIES:
        worse = apply_common_corruption(scene, kind, severity, rng())
        assert (worse.shape, worse.dtype) == (scene.shape, np.uint8)
        assert (worse != scene).any()
        assert (worse == apply_common_corruption(scene, kind, severity, rng())).all()
    assert (scene == kept).all()
    if kind != "saturate":  # which first takes colour away, then adds it
        assert damage(scene, kind, 1) < damage(scene, kind, 3) < 1.15 * damage(scene, kind, 5)


@pytest.mark.parametrize(
    "kind", sorted(set(ALL) - {"brightness", "saturate", "contrast", "pixelate", "jpeg_compression"})
)
def test_chance_is_drawn_from_the_generator(kind: str, scene: Picture) -> None:
    same = (apply_common_corruption(scene, kind, 3, rng(1)) == apply_common_corruption(scene, kind, 3, rng(2))).all()
    assert same == (kind in ("defocus_blur", "gaussian_blur", "zoom_blur"))


def test_noise_has_the_published_spread() -> None:
    noisy = apply_common_corruption(gray(), "gaussian_noise", 1, rng()).astype(float) / 255
    assert noisy.std() == pytest.approx(0.08, rel=0.02)
    speckled = apply_common_corruption(gray(64), "speckle_noise", 1, rng()).astype(float) / 255
    assert speckled.std() == pytest.approx(0.15 * 64 / 255, rel=0.02)
    shot = apply_common_corruption(gray(64), "shot_noise", 1, rng()).astype(float) / 255
    assert shot.std() == pytest.approx(np.sqrt(64 / 255 / 60), rel=0.02)
    salted = apply_common_corruption(gray(), "impulse_noise", 5, rng())
    assert np.isin(salted, (0, 255)).mean() == pytest.approx(0.27, rel=0.03)
    assert (salted == 255).mean() == pytest.approx((salted == 0).mean(), rel=0.05)


def test_tone() -> None:
    steps = np.zeros((40, 40, 3), np.uint8)
    steps[:, 20:] = 200
    low = apply_common_corruption(steps, "contrast", 1, rng())
    assert int(low[0, 30, 0]) - int(low[0, 0, 0]) == pytest.approx(0.4 * 200, abs=1)
    assert low.mean() == pytest.approx(100, abs=1)
    assert apply_common_corruption(gray(100), "brightness", 2, rng())[0, 0, 0] == pytest.approx(100 + 0.2 * 255, abs=1)
    red = np.full((8, 8, 3), (200, 100, 100), np.uint8)
    assert apply_common_corruption(red, "saturate", 1, rng())[0, 0].tolist() == pytest.approx(
        [200, 170, 170], abs=1
    )  # 0.3 of it


def test_compression_and_blocks(scene: Picture) -> None:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(scene, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 7])
    expected = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert (apply_common_corruption(scene, "jpeg_compression", 5, rng()) == expected).all()
    blocks = apply_common_corruption(scene[:100, :100], "pixelate", 5, rng()).reshape(25, 4, 25, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_smear_goes_one_way() -> None:
    dot = np.zeros((41, 81, 1), np.float32)
    dot[20, 40] = 1
    line = smear(np.repeat(dot, 3, 2), 10, 3, 0)[..., 0]
    assert line.sum() == pytest.approx(1, abs=1e-5)
    assert line[20].sum() == pytest.approx(1, abs=1e-5)
    assert line[20, 41:].max() < 1e-6 or line[20, :40].max() < 1e-6


def test_blurs_leave_an_even_picture_alone() -> None:
    for kind in ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"):
        assert np.abs(apply_common_corruption(gray(), kind, 5, rng()).astype(int) - 128).max() <= 1, kind


def test_plasma_fills_its_range_and_is_rougher_with_less_decay() -> None:
    smooth, rough = plasma(100, 3.0, rng()), plasma(100, 1.2, rng())
    for heights in (smooth, rough):
        assert heights.shape == (128, 128)
        assert (heights.min(), heights.max()) == (0, 1)
    assert np.abs(np.diff(smooth)).mean() < np.abs(np.diff(rough)).mean()


def test_unknown_kinds_and_severities_are_named() -> None:
    with pytest.raises(UsageError, match="no corruption 'rain': one of gaussian_noise, "):
        apply_common_corruption(gray(), "rain", 1, rng())
    with pytest.raises(UsageError, match="severity 6 of fog"):
        apply_common_corruption(gray(), "fog", 6, rng())
