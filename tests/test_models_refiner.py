"""The refiner's agents: what they do, and that none of them knows a class."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.engines import ClassSpec
from cliprl.models.actions import (
    COUNT,
    KEEP,
    NEIGHBOURS,
    PRIOR,
    PUSH,
    RESET,
    SHARPEN,
    SMOOTH,
    SWAP,
    Pictures,
    apply_actions,
    outcomes,
)
from cliprl.models.config import ReinforcementConfig
from cliprl.models.data.sample import allowed_classes
from cliprl.models.refiner import STATE_MAPS, Refiner, state_maps
from cliprl.models.reinforcement import neighbours, own_rewards, returns, sampled

H, W, D = 8, 10, 6


def pictures(seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(2, D, H, W, generator=rng)
    logits, base, prior = (3 * torch.randn(2, classes, H, W, generator=rng) for _ in range(3))
    return features, logits, base, prior


def lively(seed: int = 0) -> Refiner:
    """A refiner whose policy does all sorts of things."""
    torch.manual_seed(seed)
    refiner = Refiner(D, 8)
    torch.nn.init.normal_(refiner.policy.weight, std=3.0)
    torch.nn.init.zeros_(refiner.policy.bias)
    return refiner.eval()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100))
def test_an_untrained_refiner_is_the_identity(seed: int) -> None:
    features, logits, base, prior = pictures(seed)
    refined, moved = Refiner(D, 8)(features, logits, base, prior)
    torch.testing.assert_close(refined, logits, rtol=0, atol=0)
    assert moved.item() == 0.0
    assert moved.shape == ()


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(5)), seed=st.integers(0, 100))
def test_permuting_the_classes_permutes_the_result(order: list[int], seed: int) -> None:
    features, *three = pictures(seed)
    refiner = lively()
    refined, moved = refiner(features, *three)
    shuffled, moved_too = refiner(features, *(p[:, order] for p in three))
    torch.testing.assert_close(shuffled, refined[:, order], rtol=1e-4, atol=1e-4)
    assert moved.item() == moved_too.item() > 0.1


def test_it_takes_any_number_of_classes() -> None:
    refiner = lively()
    for classes in (2, 3, 20):
        features, *three = pictures(0, classes)
        assert refiner(features, *three)[0].shape == (2, classes, H, W)
        assert state_maps(Pictures.of(*(three[i] for i in (0, 1, 2)))).shape == (2, STATE_MAPS, H, W)


def test_what_agents_see_lies_within_zero_and_one() -> None:
    _, logits, base, prior = pictures(3)
    maps = state_maps(Pictures.of(logits, base, prior))
    assert maps.min() >= 0
    assert maps.max() <= 1 + 1e-6


def act(action: int) -> tuple[torch.Tensor, Pictures]:
    _, logits, base, prior = pictures(1)
    seen = Pictures.of(logits, base, prior)
    return apply_actions(torch.full((2, H, W), action), seen), seen


def test_keep_prior_reset_and_smooth_take_a_whole_picture() -> None:
    for action, name in ((KEEP, "logits"), (PRIOR, "prior"), (RESET, "base"), (SMOOTH, "smooth")):
        refined, seen = act(action)
        torch.testing.assert_close(refined, getattr(seen, name), rtol=0, atol=0)


def test_a_neighbour_gives_its_logits_and_the_edge_gives_its_own() -> None:
    for action, (down, right) in enumerate(NEIGHBOURS, 1):
        refined, seen = act(action)
        for row in range(H):
            for column in range(W):
                source = seen.logits[..., min(max(row + down, 0), H - 1), min(max(column + right, 0), W - 1)]
                assert torch.equal(refined[..., row, column], source)


def test_sharpen_pushes_the_leading_class() -> None:
    refined, seen = act(SHARPEN)
    leading = seen.logits.argmax(1, keepdim=True)
    expected = seen.logits.scatter_add(1, leading, torch.full(leading.shape, PUSH))
    torch.testing.assert_close(refined, expected)


def test_swap_exchanges_the_two_leading_classes_and_nothing_else() -> None:
    refined, seen = act(SWAP)
    order = seen.logits.argsort(1, descending=True)
    exchanged = order.clone()
    exchanged[:, 0], exchanged[:, 1] = order[:, 1], order[:, 0]
    assert torch.equal(refined.argsort(1, descending=True), exchanged)
    torch.testing.assert_close(refined.sort(1).values, seen.logits.sort(1).values)


def test_outcomes_are_what_each_action_does_everywhere() -> None:
    for action, outcome in enumerate(outcomes(act(KEEP)[1])):
        torch.testing.assert_close(outcome, act(action)[0])


def test_each_cell_acts_for_itself() -> None:
    _, logits, base, prior = pictures(2)
    seen = Pictures.of(logits, base, prior)
    actions = torch.randint(0, COUNT, (2, H, W), generator=torch.Generator().manual_seed(4))
    mixed = apply_actions(actions, seen)
    for action in range(COUNT):
        alone = apply_actions(torch.full_like(actions, action), seen)
        where = (actions == action)[:, None].expand_as(mixed)
        torch.testing.assert_close(mixed[where], alone[where])


CLASSES = tuple(ClassSpec(n, (0, 0, 0), k) for n, k in (("a", "background"), ("b", "tissue"), ("c", "instrument")))
ALLOWED = torch.from_numpy(allowed_classes(CLASSES))


def test_returns_are_discounted_sums_of_what_follows() -> None:
    rewards = [torch.full((1, 2, 2), value) for value in (1.0, 2.0, 4.0)]
    found = [r[0, 0, 0].item() for r in returns(rewards, 0.5)]
    assert found == [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4]


def test_every_action_is_rewarded_for_what_it_would_do_to_its_own_cell() -> None:
    """One cell of class 0 in a field of class 1, all taken for class 1; the prior knows better."""
    labels = torch.ones(1, 9, 9, dtype=torch.long)
    labels[0, 4, 4] = 0
    logits = torch.zeros(1, 3, 9, 9)
    logits[:, 1] = 8.0
    prior = logits.clone()
    prior[0, :, 4, 4] = torch.tensor([8.0, 0.0, 0.0])
    right = ALLOWED[labels].permute(0, 3, 1, 2).float()
    config = ReinforcementConfig(label_reward=2.0, effort=0.1)
    rewards = own_rewards(Pictures.of(logits, logits, prior), right, config)[0]
    assert rewards.shape == (COUNT, 9, 9)
    assert rewards[PRIOR, 4, 4].item() == pytest.approx(1 + 2 - 0.1)  # the gain is clipped at 1
    assert rewards[PRIOR, 0, 0].item() == pytest.approx(-0.1)
    assert rewards[KEEP].abs().max().item() == 0
    back = own_rewards(Pictures.of(prior, logits, logits), right, config)[0]
    assert back[PRIOR, 4, 4].item() == pytest.approx(-1 - 2 - 0.1)


def test_neighbours_share_what_a_cell_earns() -> None:
    own = torch.zeros(1, 9, 9)
    own[0, 4, 4] = 3.0
    shared = neighbours(own)[0]
    assert shared[2, 6].item() == pytest.approx(3 / 25)
    assert shared[1, 4].item() == 0


def test_sampled_actions_follow_the_policy() -> None:
    torch.manual_seed(0)
    shares = torch.tensor([0.7, 0.2, 0.1])
    drawn = sampled(shares.log()[None, :, None, None].expand(1, 3, 100, 200))
    found = torch.bincount(drawn.flatten(), minlength=3) / drawn.numel()
    torch.testing.assert_close(found, shares, atol=0.015, rtol=0)
