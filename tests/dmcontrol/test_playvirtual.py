"""PlayVirtual: its virtual trajectories, the way back, the cycle's targets and its weight; without the cycle it is SPR."""

import math

import pytest
import torch
from small_agents import FP32, fill, make, state
from toy_dynamics import know, walk

from DMControl.core.errors import UserError
from DMControl.methods import make_agent
from DMControl.methods.playvirtual import ramp
from DMControl.methods.spr import Windows
from DMControl.settings import read_config
from tests.turning import turn


def part_of(agent, config, n=6):
    sequence = fill(agent, config).sample_sequences(n, agent.objective.window)
    agent.objective.chunk = 1000
    (part,) = agent.objective.parts(sequence, agent.generator)
    return part


def test_the_published_numbers():
    c = read_config(["method=playvirtual", "preset=paper", "task=finger_spin"])
    assert (c.spr.steps, c.playvirtual.copies, c.spr.batch_size, c.sac.batch_size) == (6, 10, 128, 512)
    assert (c.playvirtual.weight, c.playvirtual.ramp, c.spr.weight, c.spr.clip, c.spr.tau) == (1.0, 50_000, 1.0, 10.0, 0.05)
    assert c.sac.lr == c.spr.lr == c.spr.encoder_lr == 1e-3 and c.spr.variant == "A"
    cheetah = read_config(["method=playvirtual", "task=cheetah_run"])
    assert cheetah.sac.lr == cheetah.spr.lr == cheetah.spr.encoder_lr == 2e-4
    agent = make_agent(read_config(["method=playvirtual", "encoder.filters=1"]), 1, FP32)
    assert sum(p.numel() for p in agent.objective.reverse.parameters()) == 53_298
    assert not torch.equal(agent.objective.reverse.layers[0].weight, agent.objective.dynamics.layers[0].weight)


def test_virtual_actions_are_uniform_and_each_trajectory_has_its_own():
    agent, config = make("playvirtual", "playvirtual.copies=10", "spr.steps=6")
    actions = part_of(agent, config, 100).actions
    assert actions.shape == (100, 10, 6, 2) and actions.abs().max() <= 1
    assert actions.min() < -0.99 and actions.max() > 0.99
    counts = torch.histc(actions, 20, -1, 1)
    expected = actions.numel() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square with 19 degrees of freedom: 1 in 7,000
    assert actions.flatten().unique().numel() > 0.99 * actions.numel()


def test_the_way_back_undoes_the_way_there():
    """With dynamics that can be undone, and their inverse, every cycle ends where it began: the actions must be reversed, as turns about
    two axes depend on their order."""
    agent, config = make("playvirtual", "spr.steps=6", "playvirtual.copies=10", "augment.intensity=0")
    o = agent.objective
    away = lambda z, a: turn(turn(z, 2 * a[..., 0], 0), 2 * a[..., 1], 1)  # noqa: E731
    back = lambda z, a: turn(turn(z, -2 * a[..., 1], 1), -2 * a[..., 0], 0)  # noqa: E731
    know(o, away, reverse=back)
    sequence = walk(agent, config).sample_sequences(16, 7)
    (part,) = o.parts(sequence, agent.generator)
    _, metrics = o.loss(part)
    assert metrics["loss/cycle"] < 1e-10 and metrics["loss/spr"] > 0.1
    know(o, away, reverse=away)
    assert o.loss(part)[1]["loss/cycle"] > 0.1


def test_the_cycle_meets_fresh_views_of_its_beginning_through_the_target_encoder():
    agent, config = make("playvirtual", "spr.steps=3", "playvirtual.copies=5")
    o, part = agent.objective, part_of(agent, config, 4)
    seen = []
    o.target_encoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    targets = o.target(part)
    assert seen == [4 * (3 + 5)] and not targets.requires_grad  # one batch
    for b in range(4):
        rows = slice(b * 8 + 3, b * 8 + 8)
        first = part.sequence.obs[4 * b : 4 * b + 1]
        views = [o.augment.view(first, part.target_view[r : r + 1]) for r in range(rows.start, rows.stop)]
        for view, target in zip(views, targets[b, 3:], strict=True):
            torch.testing.assert_close(o.target_projection(o.target_encoder(view))[0], target)
        views.append(o.augment.view(first, part.view[b : b + 1]))  # what the cycle began from
        assert all(not torch.equal(one, two) for n, one in enumerate(views) for two in views[:n])
    before = o.loss(part)[1]["loss/cycle"]
    with torch.no_grad():
        o.encoder.head.fc.weight[0] += 1.0
        o.projection[0].weight[0] += 1.0
    assert torch.equal(o.target(part), targets)  # the online networks have no part in it
    assert not torch.equal(o.loss(part)[1]["loss/cycle"], before)


def test_the_cycle_by_hand():
    agent, config = make("playvirtual", "spr.steps=3", "playvirtual.copies=2")
    o, part = agent.objective, part_of(agent, config, 3)
    state_0, targets = o.state(part), o.target(part)
    unit = lambda x: x / x.norm()  # noqa: E731
    wanted = []
    for b in range(3):
        for m in range(2):
            z = state_0[b]
            for k in (0, 1, 2):
                z = o.dynamics(z, part.actions[b, m, k])
            for k in (2, 1, 0):
                z = o.reverse(z, part.actions[b, m, k])
            wanted.append((unit(o.prediction(o.projection(z))) - unit(targets[b, 3 + m])).square().sum())
    o.weight.fill_(0.7)
    loss, metrics = o.loss(part)
    wanted = torch.stack(wanted).view(3, 2).mean(1)
    forward, _ = o.forward_loss(part, state_0, targets)
    torch.testing.assert_close(loss, forward + 0.7 * wanted)
    torch.testing.assert_close(metrics["loss/cycle"], wanted.mean().detach())
    torch.testing.assert_close(forward.mean().detach(), 3 * metrics["loss/spr"])


def test_the_cycles_gradient_reaches_encoder_and_both_models():
    agent, config = make("playvirtual")
    o, part = agent.objective, part_of(agent, config)
    o.scale = 0.0
    for weight in (1.0, 0.0):
        o.weight.fill_(weight)
        o.zero_grad()
        o.loss(part)[0].mean().backward()
        for module in (o.encoder.trunk, o.dynamics, o.reverse, o.projection, o.prediction):
            assert bool(any((p.grad != 0).any() for p in module.parameters())) == (weight > 0)
    assert all(p.grad is None for module in (o.target_encoder, o.target_projection) for p in module.parameters())


# --- the cycle's weight


@pytest.mark.parametrize(("task", "repeat"), [("finger_spin", 2), ("cheetah_run", 4), ("cartpole_swingup", 8)])
def test_the_ramp_counts_env_steps(task, repeat):
    """Full weight from env step 50,000 whatever the action repeat. The official counter is that of the steps before this one."""
    agent, config = make("playvirtual", f"task={task}", "playvirtual.ramp=50000", "playvirtual.weight=2")
    assert config.action_repeat == repeat
    replay, weights = fill(agent, config), []
    for before in (1000 * repeat, 25_000, 49_000, 50_000, 90_000):
        weights.append(agent.update(replay, before // repeat + 1).metrics["playvirtual/weight"].item())
    expected = [2 * math.exp(-5 * (1 - (s // repeat * repeat + 1) / 50_000) ** 2) for s in (1000 * repeat, 25_000, 49_000)]
    assert weights == pytest.approx([*expected, 2, 2], rel=1e-6)
    assert weights[1] == pytest.approx(2 * 0.287, abs=2e-3)  # 25,000 less an action repeat


def test_the_ramp_begins_at_exp_of_minus_five():
    assert ramp(0, 50_000) == pytest.approx(0.0067393, abs=1e-6) and ramp(1999, 50_000) == pytest.approx(0.00997, abs=5e-6)
    assert ramp(49_998, 50_000) < 1 == ramp(50_000, 50_000) == ramp(0, 0)


# --- without the cycle


def after_updates(method, *settings):
    agent, config = make(method, *settings)
    replay = fill(agent, config)
    for number in range(3):
        agent.update(replay, 60 + number)
    return agent


def test_without_the_cycle_it_is_spr():
    spr = state(after_updates("spr", "spr.variant=A"))
    assert torch.equal(state(after_updates("playvirtual", "playvirtual.weight=0")), spr)
    assert not torch.equal(state(after_updates("playvirtual"))[: len(spr)], spr)


def test_a_cycle_of_weight_0_adds_nothing_to_sprs_steps():
    """Computed all the same. The reverse model stays where it is."""
    (one, config), (two, _) = make("playvirtual"), make("spr")
    part, k = part_of(one, config), one.objective.steps
    rows = torch.arange(6)[:, None] * part.each + torch.arange(k)  # without the cycle's target images
    plain = Windows(part.sequence, part.view, part.target_view[rows.flatten()], k)
    one.objective.full_weight = 0.0
    one.objective.at_step(60)
    old = [p.detach().clone() for p in one.objective.reverse.parameters()]
    for agent, given in ((one, part), (two, plain)):
        agent.objective.draw = lambda sequence, generator, given=given: given
        for _ in range(3):
            metrics = agent.update_objective(part.sequence)
    torch.testing.assert_close(state(one)[: len(state(two))], state(two), rtol=1e-4, atol=1e-5)
    assert metrics["loss/spr"] > 0 and all(torch.equal(p, q) for p, q in zip(one.objective.reverse.parameters(), old, strict=True))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["playvirtual.copies=0"], "playvirtual.copies=0 must be at least 1"),
        (["spr.steps=0"], "spr.steps=0 must be between 1"),
        (["playvirtual.weight=-1"], "must be at least 0"),
        (["mlr.tau=0.1"], "no effect with method=playvirtual"),
        (["playvirtual.copys=3"], "did you mean playvirtual.copies"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        make("playvirtual", *arguments)
