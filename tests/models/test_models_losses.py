"""The losses against plain double-precision loops and hand-worked cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.engines import ClassSpec
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, allowed_classes, instrument_classes
from cliprl.models.training.losses import dhn_nce, dice_loss, partial_cross_entropy

CLASSES = (
    ClassSpec("ground", (0, 0, 0), "background"),
    ClassSpec("liver", (1, 1, 1), "tissue"),
    ClassSpec("shaft", (2, 2, 2), "instrument"),
    ClassSpec("jaw", (3, 3, 3), "instrument"),
)
ALLOWED = torch.from_numpy(allowed_classes(CLASSES))


def reference_dhn_nce(images: np.ndarray, texts: np.ndarray, tau: float, beta: float) -> float:
    """The formula as it is written, one term after the other."""
    size, total = len(images), 0.0
    for first, second in ((images, texts), (texts, images)):
        for i in range(size):
            s = [float(first[i] @ second[j]) / tau for j in range(size)]
            others = [j for j in range(size) if j != i]
            norm = sum(math.exp(beta * s[k]) for k in others)
            weighted = sum((size - 1) * math.exp(beta * s[j]) / norm * math.exp(s[j]) for j in others)
            total += math.log(weighted) - s[i]
    return total


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(2, 9),
    seed=st.integers(0, 1000),
    tau=st.floats(0.05, 1.0),
    beta=st.floats(0.0, 1.0),
)
def test_dhn_nce_is_the_formula(size: int, seed: int, tau: float, beta: float) -> None:
    rng = np.random.default_rng(seed)
    pairs = rng.standard_normal((2, size, 6))
    pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
    expected = reference_dhn_nce(pairs[0], pairs[1], tau, beta)
    exact = dhn_nce(torch.from_numpy(pairs[0]), torch.from_numpy(pairs[1]), tau, beta)
    single = dhn_nce(torch.from_numpy(pairs[0]).float(), torch.from_numpy(pairs[1]).float(), tau, beta)
    assert exact.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert single.item() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_dhn_nce_gradient_is_finite_and_draws_pairs_together() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(6, 8, generator=rng), dim=1).requires_grad_()
    texts = torch.nn.functional.normalize(torch.randn(6, 8, generator=rng), dim=1)
    dhn_nce(images, texts, 0.6, 0.15).backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad * texts).sum() < 0


def test_partial_labels_train_the_sum_of_allowed_classes() -> None:
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    logits = p.log()[None, :, None, None].expand(1, 4, 1, 4)
    labels = torch.tensor([[[3, INSTRUMENT, NOT_INSTRUMENT, IGNORE]]])
    losses = partial_cross_entropy(logits, labels, ALLOWED)[0, 0]
    expected = [-math.log(0.4), -math.log(0.7), -math.log(0.3), 0.0]
    np.testing.assert_allclose(losses, expected, atol=1e-6)


@pytest.mark.parametrize(("classes", "code"), [(CLASSES[:2], INSTRUMENT), (CLASSES[2:], NOT_INSTRUMENT)])
def test_a_label_that_fits_no_class_is_unknown(classes: tuple[ClassSpec, ...], code: int) -> None:
    labels, logits = torch.tensor([[[0, code]]]), torch.randn(1, 2, 1, 2, generator=torch.Generator().manual_seed(0))
    loss = partial_cross_entropy(logits, labels, torch.from_numpy(allowed_classes(classes)))[0, 0]
    assert loss[0] == pytest.approx(-float(logits[0, :, 0, 0].log_softmax(0)[0]), rel=1e-4)
    assert loss[1] == 0


def test_dice_is_near_zero_for_truth_and_one_for_opposite() -> None:
    labels = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    truth = 40.0 * torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2)
    wrong = truth.roll(2, 1)
    instrument = torch.from_numpy(instrument_classes(CLASSES))
    assert dice_loss(truth, labels, instrument, ALLOWED).item() < 0.01
    assert dice_loss(wrong, labels, instrument, ALLOWED).item() > 0.95


def test_dice_of_partial_labels_uses_only_the_instrument_union() -> None:
    labels = torch.full((1, 4, 4), INSTRUMENT)
    instrument = torch.from_numpy(instrument_classes(CLASSES))
    for leading in (2, 3):
        logits = torch.zeros(1, 4, 4, 4)
        logits[:, leading] = 40
        assert dice_loss(logits, labels, instrument, ALLOWED).item() < 0.01
