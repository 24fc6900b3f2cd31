"""The refiner's agents: what they do and earn, and that none of them knows a class but by its text."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cliprl.engines import ClassSpec
from cliprl.models.config.config import ReinforcementConfig
from cliprl.models.data.sample import IGNORE
from cliprl.models.network.actions import (
    BLEND,
    CONCEPTS,
    KEEP,
    NEIGHBORS,
    PRIOR,
    RESET,
    SHARPEN,
    SHARPER,
    SMOOTH,
    ActionContext,
    apply_actions,
    concept_directions,
    outcomes,
)
from cliprl.models.network.refiner import STATE_MAPS, RefinerNetwork, mean_and_deviation, state_maps
from cliprl.models.training.stages import rollout as rollout_module
from cliprl.models.training.stages.rewards import agent_rewards, cell_weights, neighborhood_mean, reward_to_go
from cliprl.models.training.stages.rollout import (
    AllowedClasses,
    Observation,
    Transition,
    expected_step,
    imitation_weight,
    reinforcement_loss,
    rollout,
    sample_actions,
    shift_randomly,
    simulate_prior,
    unrolled_loss,
)

H, W, D, E = 8, 10, 6, 16
BOUND = 5.0
CLASSES = tuple(ClassSpec(n, (0, 0, 0), k) for n, k in (("a", "background"), ("b", "tissue"), ("c", "instrument")))
Maps = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def images(seed: int, classes: int = 5) -> Maps:
    """Features, logits, base, prior, and texts."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(2, D, H, W, generator=rng)
    logits, base, prior = (3 * torch.randn(2, classes, H, W, generator=rng) for _ in range(3))
    return features, logits, base, prior, F.normalize(torch.randn(classes, E, generator=rng), dim=1)


def fresh(concepts: int = 3) -> RefinerNetwork:
    refiner = RefinerNetwork(D, 8, E, concepts, ReinforcementConfig()).eval()
    refiner.learn_concepts(F.normalize(torch.randn(concepts, E, generator=torch.Generator().manual_seed(9)), dim=1))
    return refiner


def lively(seed: int = 0) -> RefinerNetwork:
    """A refiner whose policy does all sorts of things."""
    torch.manual_seed(seed)
    refiner = fresh()
    torch.nn.init.normal_(refiner.policy.weight, std=3.0)
    torch.nn.init.zeros_(refiner.policy.bias)
    return refiner


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), certain=st.booleans())
def test_a_step_counts_the_labels_that_it_changed(seed: int, certain: bool) -> None:
    """The loop stops on this figure. With one class far ahead everywhere, cells act and no label changes."""
    features, logits, base, prior, text = images(seed)
    if certain:
        for state in (logits, base, prior):
            state[:, 1] += 1000.0
    with torch.no_grad():
        refined, changed = lively(seed)(features, logits, base, prior, text)
    assert not torch.equal(refined, logits)
    assert float(changed) == pytest.approx(float((refined.argmax(1) != logits.argmax(1)).float().mean()))
    assert not certain or float(changed) == 0.0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100))
def test_an_untrained_refiner_is_the_identity(seed: int) -> None:
    features, logits, base, prior, text = images(seed)
    refined, moved = fresh()(features, logits, base, prior, text)
    torch.testing.assert_close(refined, logits, rtol=0, atol=0)
    assert moved.item() == 0.0
    assert moved.shape == ()


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(5)), seed=st.integers(0, 100))
def test_permuting_the_classes_with_their_texts_permutes_the_result(order: list[int], seed: int) -> None:
    features, *three, text = images(seed)
    refiner = lively()
    refined, moved = refiner(features, *three, text)
    shuffled, moved_too = refiner(features, *(p[:, order] for p in three), text[order])
    torch.testing.assert_close(shuffled, refined[:, order], rtol=1e-4, atol=1e-4)
    assert moved.item() == moved_too.item() > 0.1


def test_what_a_class_is_lies_in_its_text() -> None:
    features, *three, text = images(3)
    refiner = lively()
    assert not torch.equal(refiner(features, *three, text)[0], refiner(features, *three, text.roll(1, 0))[0])


def test_it_takes_any_number_of_classes() -> None:
    refiner = lively()
    for classes in (2, 3, 20):
        features, *three, text = images(0, classes)
        assert refiner(features, *three, text)[0].shape == (2, classes, H, W)
        assert state_maps(ActionContext.of(*three, BOUND)).shape == (2, STATE_MAPS, H, W)


def test_what_agents_see_lies_within_zero_and_one() -> None:
    _, logits, base, prior, _ = images(3)
    maps = state_maps(ActionContext.of(logits, base, prior, BOUND))
    assert maps.min() >= 0
    assert maps.max() <= 1 + 1e-6


PUSHES = F.pad(torch.tensor([[3.0, 0.0], [0.5, 3.0], [0.0, -1.0], [0.0, 0.0], [1.0, 1.0]]), (CONCEPTS, 0))
COUNT = PUSHES.shape[1]


def act(action: int) -> tuple[torch.Tensor, ActionContext]:
    _, logits, base, prior, _ = images(1)
    seen = ActionContext.of(logits, base, prior, BOUND)
    return apply_actions(torch.full((2, H, W), action), seen, PUSHES), seen


def test_keep_prior_blend_reset_and_smooth_take_a_whole_picture() -> None:
    for action, name in ((KEEP, "logits"), (PRIOR, "prior"), (BLEND, "blend"), (RESET, "base"), (SMOOTH, "smooth")):
        refined, seen = act(action)
        torch.testing.assert_close(refined, getattr(seen, name), rtol=0, atol=0)


def test_neighbors_give_logits_and_the_edge_repeats_itself() -> None:
    for action, (down, right) in enumerate(NEIGHBORS, 1):
        refined, seen = act(action)
        for row in range(H):
            for column in range(W):
                source = seen.logits[..., min(max(row + down, 0), H - 1), min(max(column + right, 0), W - 1)]
                assert torch.equal(refined[..., row, column], source)


def test_sharpen_pushes_the_leading_class() -> None:
    refined, seen = act(SHARPEN)
    leading = seen.logits.argmax(1, keepdim=True)
    expected = seen.logits.scatter_add(1, leading, torch.full(leading.shape, SHARPER))
    torch.testing.assert_close(refined, expected)


def test_a_concept_adds_its_push_to_each_class() -> None:
    for action in range(CONCEPTS, COUNT):
        refined, seen = act(action)
        torch.testing.assert_close(refined, seen.bounded + PUSHES[:, action][None, :, None, None])


@pytest.mark.parametrize(("push", "bound", "needed"), [(6.0, 5.0, 1), (3.0, 8.0, 3)])
def test_label_falls_to_few_pushes_despite_a_certain_base(push: float, bound: float, needed: int) -> None:
    text = torch.eye(3, E)
    refiner = RefinerNetwork(D, 8, E, 3, ReinforcementConfig(push=push, bound=bound))
    refiner.learn_concepts(text)
    sure = torch.zeros(1, 3, H, W)
    sure[:, 0] = 40.0
    logits, pushes = sure, 0
    while (logits.argmax(1) != 2).any():
        seen = refiner.context(logits, sure, sure)
        logits = apply_actions(torch.full((1, H, W), CONCEPTS + 2), seen, refiner.pushes(text))
        pushes += 1
        assert pushes <= needed
    assert pushes == needed
    assert torch.equal(apply_actions(torch.full((1, H, W), KEEP), seen, refiner.pushes(text)), seen.logits)


def test_bound_keeps_the_leader_and_its_limited_margin() -> None:
    seen = act(KEEP)[1]
    behind, bounded = (z.amax(1, keepdim=True) - z for z in (seen.logits, seen.bounded))
    torch.testing.assert_close(bounded, behind.clamp(max=BOUND))
    torch.testing.assert_close(seen.bounded.amax(1), seen.logits.amax(1), rtol=0, atol=0)


def test_an_agent_is_told_what_the_whole_picture_is_like() -> None:
    """What changes in one corner reaches the agents in the other, beyond the sight of the convolutions."""
    refiner, maps = lively(), torch.zeros(1, D, 40, 40)
    logits, text = torch.zeros(1, 5, 40, 40), F.normalize(torch.randn(5, E), dim=1)
    darker = maps.clone()
    darker[..., 30:, 30:] = 5.0
    one, other = (
        refiner.act(f, ActionContext.of(logits, logits, logits, BOUND), text)[0][..., 0, 0] for f in (maps, darker)
    )
    assert (one - other).abs().max() > 1e-3


def test_the_spread_of_maps_is_their_mean_and_deviation() -> None:
    maps = torch.randn(2, 3, H, W, generator=torch.Generator().manual_seed(0))
    found = mean_and_deviation(maps)[..., 0, 0]
    torch.testing.assert_close(found[:, :3], maps.mean((2, 3)))
    torch.testing.assert_close(found[:, 3:], maps.std((2, 3), correction=0), rtol=1e-2, atol=1e-3)


def test_a_concept_raises_its_own_class_and_hardly_another() -> None:
    text = F.normalize(torch.randn(6, 32, generator=torch.Generator().manual_seed(2)), dim=1)
    similar = text @ concept_directions(text).T
    torch.testing.assert_close(similar.diagonal(), torch.ones(6))
    assert (similar - torch.eye(6)).abs().max() < 0.1
    refiner = RefinerNetwork(D, 8, 32, 6, ReinforcementConfig())
    refiner.learn_concepts(text)
    assert refiner.pushes(text)[:, CONCEPTS:].diagonal().tolist() == pytest.approx(
        [ReinforcementConfig().push] * 6, rel=1e-4
    )
    near = F.normalize(text[:1] + 0.1 * text[1:2], dim=1)  # a prompt that means nearly what the first class does
    assert refiner.pushes(near).argmax().item() == CONCEPTS


def test_outcomes_are_what_each_action_does_everywhere() -> None:
    every = list(outcomes(act(KEEP)[1], PUSHES))
    assert len(every) == COUNT
    for action, outcome in enumerate(every):
        torch.testing.assert_close(outcome, act(action)[0])


def test_each_cell_acts_for_itself() -> None:
    _, logits, base, prior, _ = images(2)
    seen = ActionContext.of(logits, base, prior, BOUND)
    actions = torch.randint(0, COUNT, (2, H, W), generator=torch.Generator().manual_seed(4))
    together = apply_actions(actions, seen, PUSHES)
    for action in range(COUNT):
        alone = apply_actions(torch.full_like(actions, action), seen, PUSHES)
        where = (actions == action)[:, None].expand_as(together)
        torch.testing.assert_close(together[where], alone[where])


def lone_cell() -> tuple[ActionContext, torch.Tensor]:
    """One cell of class 0 in a field of class 1, all taken for class 1; the prior knows better. And the truth."""
    labels = torch.ones(1, 9, 9, dtype=torch.long)
    labels[0, 4, 4] = 0
    logits = torch.zeros(1, 3, 9, 9)
    logits[:, 1] = 8.0
    prior = logits.clone()
    prior[0, :, 4, 4] = torch.tensor([8.0, 0.0, 0.0])
    return ActionContext.of(logits, logits, prior, BOUND), labels


def test_every_action_is_rewarded_for_its_effect_on_its_cell() -> None:
    seen, labels = lone_cell()
    config = ReinforcementConfig(label_reward=2.0, effort=0.1)
    truths, pushes = (
        AllowedClasses.of(CLASSES).maps(labels),
        F.pad(torch.diag(torch.tensor([9.0, 9.0, 9.0])), (CONCEPTS, 0)),
    )
    rewards = agent_rewards(seen, pushes, truths, config)[0]
    assert rewards.shape == (CONCEPTS + 3, 9, 9)
    for action in (PRIOR, CONCEPTS):
        assert rewards[action, 4, 4].item() == pytest.approx(1 + 2 - 0.1)  # the gain is clipped at 1
    assert rewards[PRIOR, 0, 0].item() == pytest.approx(-0.1)
    assert rewards[CONCEPTS, 0, 0].item() == pytest.approx(-1 - 2 - 0.1, abs=1e-3)
    assert rewards[KEEP].abs().max().item() == 0
    back = agent_rewards(ActionContext.of(seen.prior, seen.base, seen.base, BOUND), pushes, truths, config)[0]
    assert back[PRIOR, 4, 4].item() == pytest.approx(-1 - 2 - 0.1)


def test_confusion_within_instruments_costs_half_of_that_with_tissue() -> None:
    classes = (*CLASSES, ClassSpec("d", (0, 0, 0), "instrument"))
    truth = AllowedClasses.of(classes)
    logits = torch.tensor([0.0, 0.0, 8.0, 0.0])[None, :, None, None]
    truths = truth.maps(torch.full((1, 1, 1), 2))
    config = ReinforcementConfig(label_reward=2.0, effort=0.0)
    pushes = F.pad(torch.diag(torch.full((4,), 20.0)), (CONCEPTS, 0))
    rewards = agent_rewards(ActionContext.of(logits, logits, logits, BOUND), pushes, truths, config)
    assert rewards[0, CONCEPTS + 3].item() == pytest.approx(rewards[0, CONCEPTS + 1].item() / 2, abs=0.02)


def test_neighbors_share_rewards_and_later_rewards_are_discounted() -> None:
    own = torch.zeros(1, 9, 9)
    own[0, 4, 4] = 3.0
    assert neighborhood_mean(own)[0, 2, 6].item() == pytest.approx(3 / 25)
    assert neighborhood_mean(own)[0, 1, 4].item() == 0
    rewards = [torch.full((1, 9, 9), value) for value in (1.0, 2.0, 4.0)]
    returns = [rest[0, 4, 4].item() for rest in reward_to_go(rewards, 0.5, 0.5)]
    last = 0.5 * 4
    middle = 0.5 * 2 + 0.5 * (4 + last)
    assert returns == [0.5 * 1 + 0.5 * (2 + middle), middle, last]


def test_cells_of_rare_labels_count_more_and_unknown_ones_nothing() -> None:
    labels = torch.tensor([[[0] * 8 + [1] * 2 + [IGNORE] * 5]])
    torch.testing.assert_close(cell_weights(labels, 0.0), torch.tensor([[[1.0] * 10 + [0.0] * 5]]))
    found = cell_weights(labels, 0.5)[0, 0]
    torch.testing.assert_close(found[:10], torch.tensor([0.8] * 8 + [0.2] * 2) ** -0.5)
    assert not found[10:].any()
    assert not cell_weights(torch.full((1, 2, 2), IGNORE), 0.5).any()


def test_the_loss_is_the_mean_over_cells_as_they_count() -> None:
    rng = torch.Generator().manual_seed(7)
    labels = torch.tensor([[[0, 0, 0, 1, IGNORE]]])
    own, scores = torch.randn(1, 4, 1, 5, generator=rng), torch.randn(1, 4, 1, 5, generator=rng)
    transition = Transition(own, scores.log_softmax(1), own[:, 0], own[:, 0], own[:, 0])
    config = ReinforcementConfig(rarity=0.5, foresight=0.0)
    loss, _ = reinforcement_loss([transition], labels, 0.0, config)
    counts = torch.tensor([0.75**-0.5] * 3 + [0.25**-0.5, 0.0])
    expected = -((scores.softmax(1) * own).sum(1)[0, 0] * counts).sum() / counts.sum()
    torch.testing.assert_close(loss, expected)


def test_sampled_actions_follow_the_policy() -> None:
    torch.manual_seed(0)
    shares = torch.tensor([0.7, 0.2, 0.1])
    drawn = sample_actions(shares.log()[None, :, None, None].expand(1, 3, 100, 200))
    found = torch.bincount(drawn.flatten(), minlength=3) / drawn.numel()
    torch.testing.assert_close(found, shares, atol=0.015, rtol=0)


@pytest.mark.parametrize(
    ("left", "weights"), [(0.1, [0.4, 0.2, 0.04, 0.04]), (1.0, [0.4] * 4), (0.0, [0.4, 0.2, 0, 0])]
)
def test_the_anchor_fades_to_what_is_left_of_it(left: float, weights: list[float]) -> None:
    config = ReinforcementConfig(anchor=0.4, anchor_left=left)
    assert [imitation_weight(step, 100, config) for step in (0, 25, 50, 99)] == pytest.approx(weights)


def field() -> tuple[Observation, torch.Tensor, AllowedClasses]:
    """A square of class 2 that the base mostly takes for class 0, and features that show it."""
    rng = torch.Generator().manual_seed(5)
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    labels[:, 4:12, 4:12] = 2
    features = 0.3 * torch.randn(2, D, 16, 16, generator=rng)
    features[:, 0] += (labels == 2).float()
    base = torch.randn(2, 3, 16, 16, generator=rng)
    base[:, 0] += 2.0
    first = torch.tensor([True, False])
    return Observation(features, base, features, base, labels, first), torch.eye(3, E), AllowedClasses.of(CLASSES)


@pytest.mark.parametrize(("learns", "foresight"), [("rl", 0.0), ("rl", 0.3), ("supervised", 0.0)])
def test_agents_learn_to_mend_what_the_features_show(learns: str, foresight: float) -> None:
    seen, text, truth = field()
    torch.manual_seed(0)
    refiner = RefinerNetwork(D, 8, E, 3, ReinforcementConfig())
    refiner.learn_concepts(text)
    optimizer, config = torch.optim.Adam(refiner.parameters(), lr=1e-2), ReinforcementConfig(foresight=foresight)
    for step in range(60):
        prior = simulate_prior(refiner, seen, text, 2, learns == "supervised")
        if learns == "rl":
            transitions = rollout(refiner, seen, prior, text, truth, 2, config)
            loss, _ = reinforcement_loss(transitions, seen.labels, imitation_weight(step, 60, config), config)
        else:
            loss, _ = unrolled_loss(refiner, seen, prior, text, truth, 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits, prior = seen.base, seen.base
    with torch.no_grad():
        for _ in range(2):
            if learns == "rl":
                logits, _ = refiner(seen.features, logits, seen.base, prior, text)
            else:
                logits = expected_step(refiner, seen.features, ActionContext.of(logits, seen.base, prior, BOUND), text)
    before, after = ((z.argmax(1) == seen.labels).float().mean().item() for z in (seen.base, logits))
    assert before < 0.75
    assert after > 0.95


@pytest.mark.parametrize("passes", [1, 2])
def test_prior_is_the_repeatedly_refined_previous_frame_or_base(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_SHIFT", 0), ("CUT_SHARE", 0.0)):
        monkeypatch.setattr(rollout_module, name, value)
    monkeypatch.setattr(torch, "randint", lambda low, high, size: torch.full(size, high - 1))  # the most that is drawn
    monkeypatch.setattr(rollout_module, "MAX_PRIOR_PASSES", passes)
    seen, text, _ = field()
    refiner = lively()
    refiner.learn_concepts(text)
    expected = seen.earlier
    for _ in range(passes):
        expected, _ = refiner(seen.earlier_features, seen.earlier, seen.earlier, expected, text)
    prior = simulate_prior(refiner, seen, text, 1)
    torch.testing.assert_close(prior[0], seen.base[0])
    torch.testing.assert_close(prior[1], expected[1])
    assert not torch.equal(prior[1], seen.base[1])


def test_after_a_cut_the_prior_is_another_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, text, _ = field()
    seen = seen._replace(first=torch.zeros(2, dtype=torch.bool), earlier=torch.stack([seen.base[0], -seen.base[0]]))
    refiner = RefinerNetwork(D, 8, E, 3, ReinforcementConfig())  # keeps everything
    priors = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(rollout_module, "CUT_SHARE", share)
        monkeypatch.setattr(rollout_module, "MAX_SHIFT", 0)
        priors.append(simulate_prior(refiner, seen, text, 1))
    torch.testing.assert_close(priors[0], seen.earlier)
    torch.testing.assert_close(priors[1], seen.earlier.flip(0))


def test_prior_shifts_by_few_whole_cells_in_all_directions() -> None:
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 7, 7] = 1
    places = {tuple(torch.nonzero(shift_randomly(image)[0, 0])[0].tolist()) for _ in range(300)}
    assert places == {(row, column) for row in range(5, 10) for column in range(5, 10)}
