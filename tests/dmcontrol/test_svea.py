"""SVEA and its strong views."""

import pytest
import torch
from small_agents import fill, make, part_of, state
from torch.nn import functional as F

from DMControl.agents.critic_loss import squared
from DMControl.core.method.strong_augmentation import StrongAugmentation


def test_svea_is_half_clean_and_half_augmented():
    agent, config = make("svea")
    part = part_of(agent, config)
    choices = agent.critic_loss.strong.draw(6, agent.generator)
    loss, q1 = agent.critic_loss.loss(agent.critic, part, choices)
    q = lambda image: agent.critic(image, part.action)  # noqa: E731
    clean, augmented = squared(*q(part.obs), part.target), squared(*q(agent.critic_loss.strong.view(part.obs, choices)), part.target)
    torch.testing.assert_close(loss, 0.5 * clean + 0.5 * augmented)
    assert not torch.allclose(clean, augmented, rtol=1e-4)
    torch.testing.assert_close(q1, q(part.obs)[0])
    uneven, _ = make("svea", "svea.alpha=0.2", "svea.beta=0.7")
    uneven.critic_loss.strong = agent.critic_loss.strong
    torch.testing.assert_close(uneven.critic_loss.loss(agent.critic, part, choices)[0], 0.2 * clean + 0.7 * augmented)


def test_svea_augments_neither_next_observations_nor_the_actors():
    agent, config = make("svea")
    strong, seen = agent.critic_loss.strong, []
    inner = strong.view
    strong.view = lambda obs, choices: seen.append(obs) or inner(obs, choices)
    watched = []
    value = agent.target_value
    agent.target_value = lambda next_obs, *rest: watched.append(next_obs) or value(next_obs, *rest)
    replay = fill(agent, config)
    batches = []
    sample = replay.sample
    replay.sample = lambda *a: batches.append(sample(*a)) or batches[-1]
    agent.update(replay, 0)
    assert len(seen) == 1  # the critic's images alone
    assert torch.equal(watched[0], batches[0].next_obs.whole())  # not even shifted
    assert not torch.equal(seen[0], batches[0].obs.whole())  # shifted


def test_without_strong_views_svea_is_drq_without_the_second_shift():
    """augment=none with weights that sum to 1 is the plain loss, not the same batch twice."""
    one, config = make("svea", "augment=none", "augment.next_obs=true")
    two, _ = make("drq", "drq.views=1", "drq.target_views=1")
    for agent in (one, two):
        agent.update(fill(agent, config), 0)
    assert torch.equal(state(one), state(two))


def test_overlay_is_half_of_an_image_the_same_for_all_frames():
    bank = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    strong, g = StrongAugmentation("overlay", 0.5, bank), torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (64, 9, 20, 20), dtype=torch.uint8)
    choices = strong.draw(64, g)
    out = strong.view(obs, choices)
    image = 2 * out - obs  # (64, 9, 20, 20): three times the same image
    torch.testing.assert_close(image[:, :3], image[:, 3:6], atol=1e-3, rtol=0)
    torch.testing.assert_close(image[:, :3], strong.cut(choices, 20, 20), atol=1e-3, rtol=0)
    assert len({tuple(i.flatten().round().tolist()) for i in image[:, :3]}) == 64  # another piece for each observation
    assert (choices.extent[:, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.2)
    area = choices.extent.abs().prod(1)
    assert 0.07 < area.min() < 0.3 and 0.7 < area.max() <= 1
    many = strong.draw(20_000, g)
    sides = many.extent.abs()
    assert sides.max() <= 1 and (many.centre.abs() + sides).max() <= 1 + 1e-6, "within the image"
    ratio = sides[:, 0] / sides[:, 1]
    assert 3 / 4 - 1e-5 < ratio.min() and ratio.max() < 4 / 3 + 1e-5, "a side that does not fit is drawn anew, not cut"
    assert (sides == 1).all(1).float().mean() < 1e-3
    half = choices[10:20]
    assert torch.equal(strong.view(obs[10:20], half), out[10:20])
    assert torch.equal(StrongAugmentation("overlay", 0.0, bank).view(obs, choices), obs.float())
    whole = strong.cut(type(choices)(torch.tensor([2]), torch.zeros(1, 2), torch.ones(1, 2)), 32, 32)
    torch.testing.assert_close(whole[0], bank[2].permute(2, 0, 1).float(), atol=1e-3, rtol=0)


def test_random_convolutions():
    strong, g = StrongAugmentation("conv", 0.5), torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (3, 9, 10, 10), generator=g, dtype=torch.uint8)
    kernels = strong.draw(3, g)
    out = strong.view(obs, kernels)
    for n in range(3):
        for s in range(3):
            padded = F.pad(obs[n : n + 1, 3 * s : 3 * s + 3].float() / 255, (1, 1, 1, 1), mode="replicate")
            expected = torch.sigmoid(F.conv2d(padded, kernels[n])) * 255
            torch.testing.assert_close(out[n, 3 * s : 3 * s + 3], expected[0])
