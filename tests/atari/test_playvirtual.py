"""PlayVirtual: its virtual trajectories, the way back, the cycle's targets, mask and weight; without the cycle it is SPR."""

import math
from dataclasses import replace

import pytest
import torch

from Atari.core.errors import UserError
from Atari.memory import memory
from Atari.methods import make_agent
from Atari.methods.playvirtual import ramp
from Atari.settings import read_config
from Atari.train import make_replay
from tests.atari.test_spr import FP32, given, make_spr, norm, part_of
from tests.atari.turning_world import know, play, windows_of
from tests.turning import turn


def make(*settings):
    return make_spr(*settings, method="playvirtual")


def test_the_published_values():
    c = read_config(["method=playvirtual", "preset=paper"])
    assert (c.spr.steps, c.spr.weight, c.spr.tau, c.rainbow.noisy_std) == (9, 9.0, 1.0, 0.1)
    assert (c.playvirtual.copies_per_action, c.playvirtual.weight, c.playvirtual.ramp) == (2, 1.0, 50_000)
    agent = make_agent(read_config(["method=playvirtual", "encoder.filters=[4,4,4]", "rainbow.hidden=8"]), 18, FP32)
    o = agent.objective
    assert o.copies == 36 and agent.window == 10
    assert not torch.equal(o.reverse.first.weight, o.dynamics.first.weight)
    loss, metrics = given(agent, [[0, 2, 4, 2, 4, 0, 4, 2, 0]])
    assert metrics["loss/spr"].item() == pytest.approx(2) and loss.item() == pytest.approx(9 * 2)  # nine times the mean


def test_virtual_actions_are_uniform_and_not_the_replayed_ones():
    agent, replay = make("playvirtual.copies_per_action=2", "spr.steps=6", "train.random_steps=59")
    sequence, stream = replay.sample(60, 0.5).sequence, agent.generator.get_state()
    actions = agent.objective.draw(sequence, agent.generator).actions
    assert actions.shape == (60, 8, 6)
    counts = torch.bincount(actions.flatten(), minlength=4)
    expected = actions.numel() / 4
    assert len(counts) == 4 and ((counts - expected) ** 2 / expected).sum() < 20  # chi-square with 3 degrees of freedom: 1 in 6,000
    pairs = torch.bincount((4 * actions[:, :, :-1] + actions[:, :, 1:]).flatten(), minlength=16)
    expected = pairs.sum() / 16
    assert ((pairs - expected) ** 2 / expected).sum() < 45  # one step does not tell the next
    assert len(actions.flatten(0, 1).unique(dim=0)) > 0.9 * 480
    agent.generator.set_state(stream)
    changed = replace(sequence, action=(sequence.action + 1) % 4)
    assert torch.equal(agent.objective.draw(changed, agent.generator).actions, actions)


def test_the_way_back_undoes_the_way_there():
    """With dynamics that can be undone, and their inverse, every cycle ends where it began: the actions must be reversed, as turns about
    two axes depend on their order."""
    config = read_config(["preset=debug", "method=playvirtual", "augment.order=[shift]", "spr.steps=5", "playvirtual.copies_per_action=2"])
    agent = make_agent(config, 4, FP32)
    replay = make_replay(config, agent)
    play(replay, config.env.size)
    one, two = torch.tensor([0.5, 0.0, -0.7, 0.0]), torch.tensor([0.0, 0.6, 0.0, -0.9])
    away = lambda z, a: turn(turn(z, a @ one, 0), a @ two, 1)  # noqa: E731
    back = lambda z, a: turn(turn(z, -(a @ two), 1), -(a @ one), 0)  # noqa: E731
    know(agent.objective, away, reverse=back)
    part = windows_of(agent, replay)
    _, metrics = agent.objective.loss(part)
    assert metrics["loss/cycle"] < 1e-8 and metrics["loss/spr"] > 0.1
    know(agent.objective, away, reverse=away)
    assert agent.objective.loss(part)[1]["loss/cycle"] > 0.1


def test_the_cycle_by_hand():
    """With the statistics of the whole batch of trajectories in the batch norms."""
    agent, replay = make("spr.steps=2", "playvirtual.copies_per_action=2", "playvirtual.weight=0.7", "playvirtual.ramp=0")
    o, part = agent.objective, part_of(agent, replay)
    agent.objective.at_step(0)
    done = torch.zeros(8, 3)
    done[3, 0] = done[5, 1] = 1.0  # the first ends with the window's first step: its cycle does not count
    part = replace(part, sequence=replace(part.sequence, done=done))
    with torch.no_grad():
        targets, sizes = o.target(part), []
        hook = o.reverse.first.register_forward_hook(lambda module, inputs, out: sizes.append(len(out)))
        loss, metrics = o.loss(part)
        hook.remove()
        assert sizes == [64, 64]  # all trajectories of the batch at once
        forward, _ = o.forward_loss(part.sequence, targets)
        z = torch.cat([part.sequence.state[b : b + 1] for b in range(8) for _ in range(8)])
        actions = part.actions.reshape(64, 2)
        for k, model in ((0, o.dynamics), (1, o.dynamics), (1, o.reverse), (0, o.reverse)):
            z = model(z, torch.eye(4)[actions[:, k]])
        unit = lambda x: x / x.norm(dim=-1, keepdim=True)  # noqa: E731
        apart = (unit(o.prediction(o.projection(z))) - unit(targets[:, 2:].flatten(0, 1))).square().sum(-1).view(8, 8).mean(1)
    counted = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1.0])
    torch.testing.assert_close(loss, forward + 0.7 * apart * counted)
    torch.testing.assert_close(metrics["loss/cycle"], apart[counted > 0].mean())
    assert metrics["playvirtual/weight"].item() == pytest.approx(0.7)


def test_a_mended_mask_counts_every_cycle():
    agent, replay = make("quirks.mask_includes_end=false")
    part = part_of(agent, replay)
    ended = replace(part, sequence=replace(part.sequence, done=torch.ones_like(part.sequence.done)))
    agent.objective.scale = 0.0
    assert (agent.objective.loss(ended)[0] > 0).all()


def test_the_cycle_meets_fresh_views_of_its_beginning_through_the_target_encoder():
    agent, replay = make("spr.steps=3", "playvirtual.copies_per_action=1")
    o, part, seen = agent.objective, part_of(agent, replay), []
    o.target_encoder.register_forward_hook(lambda module, inputs, out: seen.append(len(inputs[0])))
    targets = o.target(part)
    assert seen == [8 * (3 + 4)] and not targets.requires_grad  # one batch
    for b in range(8):
        first = part.sequence.obs[4 * b : 4 * b + 1]
        views = [o.augment.view(first, part.target_view[r : r + 1]) for r in range(7 * b + 3, 7 * b + 7)]
        for view, target in zip(views, targets[b, 3:], strict=True):
            torch.testing.assert_close(o.target_projection(o.target_encoder(view))[0], target)
        assert all(not torch.equal(one, two) for n, one in enumerate(views) for two in views[:n])
    with torch.no_grad():
        for p in (*agent.network.trunk.parameters(), *agent.network.head.parameters()):
            p.add_(0.1)
    assert torch.equal(o.target(part), targets)  # the online networks have no part in it


def test_the_cycles_gradient_reaches_the_convolutions_and_both_models():
    agent, replay = make("playvirtual.ramp=0")
    o, batch = agent.objective, replay.sample(8, 0.5)
    o.scale = 0.0
    for weight in (1.0, 0.0):
        o.weight.fill_(weight)
        agent.optimizer.zero_grad()
        agent.objective_gradient(batch, agent.network.encoder(agent._view(batch.obs)))
        for module in (agent.network.trunk, o.dynamics, o.reverse, o.prediction, agent.network.head.value_hidden.mean):
            assert (norm(module.parameters()) > 0) == (weight > 0)
    assert all(p.grad is None for module in (o.target_encoder, o.target_projection) for p in module.parameters())


def test_three_clip_groups():
    agent, replay = make("rainbow.clip=1e-4", "spr.weight=100", "playvirtual.weight=100", "playvirtual.ramp=0")
    metrics, o = agent.update(replay, 100).metrics, agent.objective
    assert set(agent.clipped) == {"network", "dynamics", "reverse"}
    for module in (agent.network, o.dynamics, o.reverse):
        assert norm(module.parameters()) == pytest.approx(1e-4, rel=2e-3)
    assert norm(o.prediction.parameters()) > 1e-2 and metrics["grad/reverse"] > 1e-3


# --- the cycle's weight


def test_the_ramp_counts_agent_steps():
    """The official counter is that of the steps before this one."""
    agent, replay = make("playvirtual.ramp=50000", "playvirtual.weight=2")
    weights = [agent.update(replay, step).metrics["playvirtual/weight"].item() for step in (2000, 25_000, 49_000, 50_000, 90_000)]
    expected = [2 * math.exp(-5 * (1 - s / 50_000) ** 2) for s in (2000, 25_000, 49_000)]
    assert weights == pytest.approx([*expected, 2, 2], rel=1e-6) and weights[1] == pytest.approx(2 * 0.287, abs=1e-3)
    assert ramp(0, 50_000) == pytest.approx(0.0067393, abs=1e-6) and ramp(2000, 50_000) == pytest.approx(0.00997, abs=5e-6)
    assert ramp(49_998, 50_000) < 1 == ramp(50_000, 50_000) == ramp(0, 0)


# --- without the cycle


def everything(agent):
    modules = (agent.network, agent.target, agent.objective)
    return torch.cat([t.detach().double().flatten() for m in modules for t in m.state_dict().values()])


def test_without_the_cycle_it_is_spr():
    ends = []
    settings = ["spr.steps=5", "spr.weight=5"]
    for method, more in (("spr", []), ("playvirtual", ["playvirtual.weight=0"]), ("playvirtual", [])):
        agent, replay = make_spr(*settings, *more, method=method)
        for number in range(3):
            agent.update(replay, 100 + number)
        ends.append(everything(agent))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2][: len(ends[0])])


def test_the_memory_of_the_virtual_trajectories_is_counted():
    need = {}
    for copies in (1, 8):
        config = read_config(["preset=debug", "method=playvirtual", "rainbow.batch_size=16", f"playvirtual.copies_per_action={copies}"])
        need[copies] = memory(config, 6, FP32)["activations"]
    assert need[8] > 3 * need[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["playvirtual.copies_per_action=0"], "playvirtual.copies_per_action=0 must be between 1"),
        (["playvirtual.weight=-1"], "must be at least 0"),
        (["playvirtual.ramp=-1"], "must be at least 0"),
        (["playvirtual.copies=3"], "did you mean playvirtual.copies_per_action"),
        (["method=spr", "playvirtual.ramp=3"], "no effect with method=spr"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        read_config(["preset=debug", "method=playvirtual", *arguments])
