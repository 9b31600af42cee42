"""DrQ: views, targets, losses, and the setting as published."""

import pytest
import torch
from small_agents import FP32, fill, make, part_of, state
from torch.distributions import Normal
from torch.distributions.transforms import TanhTransform

from DMControl.core.method.frames import Frames
from DMControl.methods import make_agent
from DMControl.settings import read_config

ONE = ("drq.views=1", "drq.target_views=1")


def sampled(agent, config):
    batch = fill(agent, config).sample(config.sac.batch_size)
    return batch, agent.augment.draw(config.sac.batch_size, 9, agent.generator)


def small_paper(*settings):
    """The published setting with few filters."""
    return make_agent(read_config(["method=drq", "preset=paper", "encoder.filters=2", "sac.hidden=8", *settings]), 2, FP32)


def test_one_view_of_each_is_the_baseline_with_shifts():
    """To the bit, over three updates."""
    agents = [make("drq", *ONE), make("baseline", "augment.order=[shift]")]
    for agent, config in agents:
        replay = fill(agent, config)
        for _ in range(3):
            agent.update(replay, 0)
    (ours, _), (base, _) = agents
    assert torch.equal(state(ours), state(base)) and torch.equal(ours.log_alpha, base.log_alpha)


@pytest.mark.parametrize("preset", ["madi", "madi_small"])
def test_madis_drq_has_one_view(preset):
    assert read_config(["method=drq", f"preset={preset}"]).drq == {"views": 1, "target_views": 1}
    assert read_config(["method=drq", "preset=paper"]).drq == {"views": 2, "target_views": 2}


@pytest.mark.parametrize("views", [2, 3])
def test_losses_of_the_views_are_added(views):
    """Identical views give so many times the loss of one, and the same target for all."""
    agent, config = make("drq", f"drq.views={views}")
    batch, view = sampled(agent, config)
    frames, _ = choices = agent.critic_loss.draw(batch, view, agent.generator)
    assert len(frames) == (views - 1) * len(batch.action)
    part = part_of(agent, config, config.sac.batch_size)
    losses, q1 = agent.critic_loss.loss(agent.critic, part, choices)
    obs = [part.obs] + [agent.augment.view(frames, choices[1])[n :: views - 1] for n in range(views - 1)]
    by_hand = sum((q - part.target).square() for image in obs for q in agent.critic(image, part.action))
    torch.testing.assert_close(losses, by_hand)
    torch.testing.assert_close(q1, agent.critic(part.obs, part.action)[0])
    still = Frames.of_images(torch.full((1, 9, 36, 36), 77, dtype=torch.uint8))
    same = Frames(still.store, torch.zeros(len(frames), 1, dtype=torch.int64))
    object.__setattr__(part, "obs", still.whole().expand(len(part.action), -1, -1, -1))
    losses, q1 = agent.critic_loss.loss(agent.critic, part, (same, choices[1]))
    one = sum((q - part.target).square() for q in agent.critic(part.obs, part.action))
    torch.testing.assert_close(losses, views * one)


def test_the_target_is_the_mean_over_views_each_with_its_own_action():
    agent, config = make("drq", "drq.target_views=3")
    batch, _ = sampled(agent, config)
    n = len(batch.action)
    frames = batch.next_obs.repeat(3)
    images = agent.augment.view(frames, agent.augment.draw(3 * n, 9, agent.generator))
    noise = torch.randn(3 * n, 2)
    batch.not_done[0] = 0
    mean = agent.target_value(images, batch.reward, batch.not_done, noise)
    single = [agent.target_value(images[v::3], batch.reward, batch.not_done, noise[v::3]) for v in range(3)]
    torch.testing.assert_close(mean, torch.stack(single).mean(0))
    assert not torch.allclose(mean, single[0]) and mean[0] == batch.reward[0] and not mean.requires_grad


def drawn_views(agent, config, count=4000):
    """The draws of a critic's update, by what they augment."""
    replay, found, inner = fill(agent, config), [], agent.augment.draw
    agent.augment.draw = lambda *arguments: found.append(inner(*arguments)) or found[-1]
    batch = replay.sample(count)
    view = agent.augment.draw(count, 9, agent.generator)
    agent.update_critic(batch, view)
    first, following, further = found
    assert len(following.stages[0].rows) == 2 * count and len(further.stages[0].rows) == count
    return [first, *(following[k::2] for k in (0, 1)), further]


def test_the_four_views_of_a_transition_are_drawn_apart():
    agent, config = make("drq", "chunk=2000")
    offsets = []
    for view in drawn_views(agent, config, 2000):
        stage = view.stages[0]
        for axis in (stage.rows, stage.columns):
            offset = axis[:, 18] - 18  # in the middle, where no edge is repeated
            assert sorted(offset.unique().tolist()) == list(range(-4, 5))
            offsets.append(offset.float())
    apart = torch.corrcoef(torch.stack(offsets)) - torch.eye(len(offsets))
    assert apart.abs().max() < 0.1


def test_views_cost_no_copy_of_a_frame():
    agent, config = make("drq")
    batch, view = sampled(agent, config)
    frames, _ = agent.critic_loss.draw(batch, view, agent.generator)
    assert frames.store is batch.obs.store and torch.equal(frames.index, batch.obs.index)
    several = batch.next_obs.repeat(2)
    assert several.store is batch.next_obs.store and torch.equal(several.index[1::2], batch.next_obs.index)


def test_channels_move_together_and_edges_are_repeated():
    agent, config = make("drq")
    size, pad = config.image.size, config.augment.pad
    row, channel = torch.arange(1, size + 1)[:, None], torch.arange(9)[:, None, None]
    frame = (row + channel).to(torch.uint8).expand(9, size, size)
    obs = Frames.of_images(frame[None].expand(500, -1, -1, -1))
    view = agent.augment.draw(500, 9, agent.generator)
    seen = agent.augment.view(obs, view).int()
    assert (seen - seen[:, :1] == torch.arange(9)[:, None, None]).all(), "one offset for all channels"
    rows = seen[:, 0, :, 0]
    top = rows[rows[:, pad] == 1]  # shifted by all of pad
    assert len(top) > 0 and (top[:, : pad + 1] == 1).all() and (seen > 0).all(), "copies of the edge, no zeros"


def test_actor_and_temperature_see_the_first_view_alone():
    agent, config = make("drq")
    images = []
    agent.critic.encoder.trunk.register_forward_pre_hook(lambda module, inputs: images.append(inputs[0].clone()))
    agent.update(fill(agent, config), 0)
    following, critic, actor = images
    n = config.sac.batch_size
    assert len(following) == len(critic) == 2 * n and torch.equal(actor, critic[:n]) and not torch.equal(critic[:n], critic[n:])


def test_the_published_critic_moves_as_one_and_its_temperature_as_published():
    agent = small_paper("train.random_steps=40", "sac.batch_size=4")
    group = agent.alpha_optimizer.inner.param_groups[0]
    assert (agent.alpha_optimizer.lr, group["betas"]) == (1e-3, (0.9, 0.999))
    with torch.no_grad():
        for p in agent.critic.parameters():
            p.add_(torch.randn_like(p))
    before = [p.clone() for p in agent.target.parameters()]
    agent.momentum.step()
    for old, now, online in zip(before, agent.target.parameters(), agent.critic.parameters(), strict=True):
        torch.testing.assert_close(now, old + 0.01 * (online - old))


def test_the_published_log_prob_is_the_change_of_variables():
    agent = small_paper()
    features = torch.randn(64, 2, 35, 35)
    noise = torch.randn(64, 2) * 3
    for actor, exact in ((agent.actor, True), (make("drq")[0].actor, False)):
        assert actor.exact == exact
    with torch.no_grad():
        agent.actor.policy[-1].bias.fill_(3)
        agent.actor.policy[-1].weight.mul_(0.01)
        mean, raw = agent.actor.policy(agent.actor.head(features)).chunk(2, -1)
        std = (-10 + 6 * (torch.tanh(raw) + 1)).exp()
        _, action, log_pi, _ = agent.actor(features, noise)
        u = (mean + std * noise).double()
    wanted = Normal(mean.double(), std.double()).log_prob(u) - TanhTransform().log_abs_det_jacobian(u, torch.tanh(u))
    assert (1 - action.abs() < 1e-4).any()
    torch.testing.assert_close(log_pi.double(), wanted.sum(-1, keepdim=True), rtol=1e-4, atol=1e-3)


def test_the_published_convolutions_are_orthogonal():
    agent = make_agent(read_config(["method=drq", "preset=paper", "encoder.filters=8", "sac.hidden=8"]), 2, FP32)
    for conv in agent.critic.encoder.trunk.convs:
        flat = conv.weight.detach().flatten(1)
        torch.testing.assert_close(flat @ flat.T, 2 * torch.eye(8), rtol=1e-4, atol=1e-4)
        assert not conv.bias.any()
