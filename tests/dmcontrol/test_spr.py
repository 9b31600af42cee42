"""SPR: its windows, its loss, what pairs with what, its three variants, and what its steps move."""

import copy

import numpy as np
import pytest
import torch
from small_agents import FP32, fill, make, state
from torch import nn
from toy_dynamics import CPU, know, walk

from DMControl.core.errors import UserError
from DMControl.methods import make_agent
from DMControl.methods.spr import Dynamics
from DMControl.replay import Replay
from DMControl.settings import read_config
from tests.turning import TURN, turn


def window_of(agent, config, n=6, **how):
    replay = fill(agent, config, **how)
    return replay.sample_sequences(n, agent.objective.window)


def part_of(agent, sequence):
    """The whole batch as one part."""
    agent.objective.chunk = 1000
    (part,) = agent.objective.parts(sequence, agent.generator)
    return part


# --- windows and their pairs


def test_windows_of_seven_never_cross_a_time_limit():
    agent, config = make("spr", "spr.steps=6", "spr.batch_size=64")
    assert agent.window == agent.objective.window == 7
    replay, blank = Replay(500, 9, 3, config.image.size, 2, CPU, agent.generator), np.zeros((config.image.size,) * 2 + (3,), np.uint8)
    for episode in range(30):
        replay.start(blank)
        for t in range(9):
            replay.add(np.array([episode, t], np.float32), 0.0, False, t == 8, blank)
    drawn = agent.update(replay, 60).drawn["sequence"]
    good = drawn.action[drawn.valid > 0]
    assert drawn.action.shape == (64, 7, 2) and len(good) > 10
    assert (good[..., 0] == good[:, :1, 0]).all() and (good[:, 1:, 1] - good[:, :-1, 1] == 1).all()
    assert set(good[:, 0, 1].tolist()) == {0, 1}  # an episode's last transition is in none


def test_what_is_predicted_k_steps_ahead_is_the_kth_observation():
    """In a world whose dynamics are known, the loss is 0 if each action leads to the observation after it, and not otherwise."""
    agent, config = make("spr", "spr.steps=6", "augment.intensity=0")
    sequence = walk(agent, config).sample_sequences(16, 7)
    assert sequence.valid.all() and (sequence.action[:, :, 0] != 0).float().mean() > 0.8
    for sense in (1, -1):
        know(agent.objective, lambda z, a, sense=sense: turn(z, sense * 10 * TURN * a[..., 0]))
        loss, metrics = agent.objective.loss(part_of(agent, sequence))
        found = [metrics[f"loss/spr_{k}"].item() for k in range(1, 7)]
        assert max(found) < 1e-8 if sense == 1 else min(found) > 0.02, found
        assert loss.mean().item() == pytest.approx(6 * np.mean(found), abs=1e-7)


def test_the_loss_is_k_times_the_mean_over_the_steps_ahead():
    agent, config = make("spr", "spr.steps=6")
    o, sequence = agent.objective, window_of(agent, config)
    part = part_of(agent, sequence)
    unit = lambda x: x / x.norm().clamp_min(1e-3)  # noqa: E731
    wanted, ahead = [], []
    for b in range(6):
        z = o.encoder(o.augment.view(sequence.obs[7 * b : 7 * b + 1], part.view[b : b + 1]))
        each = []
        for k in range(1, 7):
            image = o.augment.view(sequence.obs[7 * b + k : 7 * b + k + 1], part.target_view[6 * b + k - 1 : 6 * b + k])
            z = o.dynamics(z, sequence.action[b : b + 1, k - 1])
            target = o.target_projection(o.target_encoder(image))
            each.append((unit(o.prediction(o.projection(z))) - unit(target)).square().sum())
        wanted.append(torch.stack(each).mean())
        ahead.append(torch.stack(each))
    wanted, ahead = torch.stack(wanted), torch.stack(ahead)
    loss, metrics = o.loss(part)
    torch.testing.assert_close(loss, 6 * wanted)
    torch.testing.assert_close(metrics["loss/spr"], wanted.mean().detach())
    for k in range(1, 7):
        torch.testing.assert_close(metrics[f"loss/spr_{k}"], ahead[:, k - 1].mean().detach())
    o.chunk = 4
    torch.testing.assert_close(torch.cat([o.loss(p)[0] for p in (part[0:4], part[4:6])]), loss)  # in parts
    for variant, factor in (("A", 6), ("B", 1), ("C", 6)):
        other, _ = make("spr", "spr.steps=6", f"spr.variant={variant}", "spr.weight=0.5")
        assert other.objective.scale == 0.5 * factor


def test_windows_that_only_fill_the_batch_count_nowhere():
    """Neither in the metrics nor in the gradient, whatever the parts."""
    agent, config = make("spr", "chunk=3")
    replay, rng, size = Replay(500, 6, 3, config.image.size, 2, CPU, agent.generator), np.random.default_rng(0), config.image.size
    pictures = rng.integers(0, 256, (120, size, size, 3), dtype=np.uint8)
    for t, picture in enumerate(pictures):
        if t % 6 == 0:
            replay.start(picture)
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), 0.0, False, t % 6 == 5, picture)
    sequence = replay.sample_sequences(16, 4)
    good = sequence.valid > 0
    assert 0 < good.sum() < 16
    stream = agent.generator.get_state()
    losses, _ = agent.objective.loss(part_of(agent, sequence))
    wanted = torch.autograd.grad(losses[good].mean(), list(agent.objective.dynamics.parameters()))
    agent.objective.chunk = 3
    agent.generator.set_state(stream)
    agent.objective_optimizers[0].step = lambda: None  # which clips
    metrics = agent.update_objective(sequence)
    assert metrics["loss/spr"].item() == pytest.approx(losses[good].mean().item() / 3, rel=1e-4)
    for p, gradient in zip(agent.objective.dynamics.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-5)


# --- networks


def test_dynamics_are_two_linear_layers_with_a_layernorm_and_a_relu_between():
    agent = make_agent(read_config(["method=spr", "preset=paper", "encoder.filters=1"]), 1, FP32)
    dynamics = agent.objective.dynamics
    assert [type(layer) for layer in dynamics.layers] == [nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear]
    assert sum(p.numel() for p in dynamics.parameters()) == 53_298
    z, a = torch.randn(3, 50), torch.randn(3, 1)
    first, norm, _, last = dynamics.layers
    hidden = torch.relu(norm(torch.cat([z, a], 1) @ first.weight.t() + first.bias))
    torch.testing.assert_close(dynamics(z, a), hidden @ last.weight.t() + last.bias)  # neither residual nor normalised
    torch.manual_seed(3)
    assert Dynamics(50, 1, 512).layers[0].weight.abs().max() <= 51**-0.5  # PyTorch's own initialisation
    assert dynamics.layers[0].weight.abs().max() <= 51**-0.5
    heads = (agent.objective.projection, agent.objective.prediction, agent.objective.target_projection)
    assert all([p.numel() for p in head.parameters()] == [5000, 100, 5000, 50] for head in heads)


def test_targets_follow_at_a_twentieth_every_second_step():
    agent, config = make("spr")
    o, replay = agent.objective, fill(agent, config)
    assert not torch.equal(o.target_projection[0].weight, o.projection[0].weight)  # drawn for itself
    pairs = ((o.encoder, o.target_encoder), (o.projection, o.target_projection))
    for p, q in zip(o.encoder.parameters(), o.target_encoder.parameters(), strict=True):
        assert torch.equal(p, q)  # a copy
    for number in range(4):
        before = [copy.deepcopy(target.state_dict()) for _, target in pairs]
        agent.update(replay, 60)
        for (online, target), old in zip(pairs, before, strict=True):
            for name, value in target.state_dict().items():
                rate = 0.05 if number % 2 == 0 else 0.0
                torch.testing.assert_close(value, old[name] + rate * (online.state_dict()[name] - old[name]), rtol=1e-5, atol=1e-7)
                assert not value.requires_grad
    assert config.spr.tau == 0.05 and read_config(["method=spr", "task=walker_walk"]).spr.tau == 0.05  # MLR's walker has 0.1


# --- steps


def gradients(agent, sequence, stream):
    """Of the loss alone, by name, without a step."""
    agent.generator.set_state(stream)
    loss, _ = agent.objective.loss(part_of(agent, sequence))
    named = {name: p for name, p in agent.objective.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss.mean(), list(named.values())), strict=True))


def one_step(*settings, method="spr"):
    """The gradients of a step before and after its clips, and what it moved, by name."""
    agent, config = make(method, *settings)
    sequence, stream = window_of(agent, config), agent.generator.get_state()
    raw = gradients(agent, sequence, stream)
    before = {name: p.detach().clone() for name, p in agent.objective.named_parameters()}
    agent.generator.set_state(stream)
    agent.update_objective(sequence)
    after = dict(agent.objective.named_parameters())
    return raw, {n: after[n].grad for n in raw}, {n: after[n].detach() - before[n] for n in raw}


def norm(tensors):
    return torch.cat([t.flatten() for t in tensors]).norm()


def rate_of(moved, gradient):
    """A first step of Adam moves every weight by its rate, but for those with next to no gradient."""
    seen = moved[gradient.abs() > 1e-4 * gradient.abs().max().clamp_min(1e-3)].abs()
    return seen.median().item()


CLIPPED = ("spr.weight=100", "spr.steps=6")  # both clips bite


@pytest.mark.parametrize(
    ("settings", "encoder", "others"),
    [
        ([], 0.5 * (3e-3 + 4e-3), 0.5 * 4e-3),
        (["quirks.half_spr_lr=false"], 3e-3 + 4e-3, 4e-3),
        (["quirks.two_adams=false"], 0.5 * 4e-3, 0.5 * 4e-3),
        (["spr.variant=B"], 2 * 3e-3 + 4e-3, 4e-3),
        (["spr.variant=C"], 0.5 * 4e-3, 0.5 * 4e-3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_how_far_a_step_goes(settings, encoder, others):
    """Two Adams at half the rate move the encoder by the sum of their steps, and everything else by one of them."""
    rates = ["spr.lr=4e-3"] + (["spr.encoder_lr=3e-3"] if encoder != others else [])
    _, clipped, moved = one_step("spr.weight=100", *rates, *settings)
    for name in ("encoder.head.fc.weight", "encoder.trunk.convs.0.weight"):
        assert rate_of(moved[name], clipped[name]) == pytest.approx(encoder, rel=1e-3)
    for name in ("dynamics.layers.0.weight", "projection.0.weight", "prediction.2.weight"):
        assert rate_of(moved[name], clipped[name]) == pytest.approx(others, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "clips"),
    [([], 2), (["quirks.double_clip=false"], 1), (["spr.variant=B"], 0), (["spr.variant=C"], 1)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_gradient_is_clipped_twice(settings, clips):
    raw, clipped, _ = one_step(*CLIPPED, *settings)
    encoder = [n for n in raw if n.startswith("encoder.")]
    alone, rest = norm(raw[n] for n in encoder), norm(raw[n] for n in raw if n not in encoder)
    assert alone > 20 and rest > 20
    first = 10 / alone if clips == 2 else torch.tensor(1.0)
    second = 10 / (rest**2 + (first * alone) ** 2).sqrt() if clips else torch.tensor(1.0)
    for name in raw:
        factor = first * second if name in encoder else second
        torch.testing.assert_close(clipped[name], factor * raw[name], rtol=1e-3, atol=1e-6)


def test_both_adams_step_with_the_gradient_of_both_clips():
    agent, config = make("spr", *CLIPPED)
    agent.update_objective(window_of(agent, config))
    for optimizer in agent.objective_optimizers:
        for p in agent.critic.encoder.parameters():
            torch.testing.assert_close(optimizer.inner.state[p]["exp_avg"], 0.1 * p.grad)


def test_what_a_step_moves():
    agent, config = make("spr")
    sequence = window_of(agent, config)
    before = {name: copy.deepcopy(m.state_dict()) for name, m in agent.modules.items()}
    agent.update_objective(sequence)
    moved = {
        f"{name}.{key}".split(".weight")[0].split(".bias")[0]
        for name, m in agent.modules.items()
        for key, value in m.state_dict().items()
        if not torch.equal(value, before[name][key])
    }
    assert {m.split(".")[1] for m in moved if m.startswith("objective")} == {"encoder", "dynamics", "projection", "prediction"}
    assert {m.split(".")[1] for m in moved if m.startswith("critic")} == {"encoder"}
    assert not [m for m in moved if m.startswith(("actor", "target"))]


# --- variants, and what is switched off


def after_updates(method, *settings, updates=3):
    agent, config = make(method, *settings)
    replay = fill(agent, config)
    for number in range(updates):
        agent.update(replay, 60 + number)
    return agent


def test_variants_differ_and_c_is_a_without_its_quirks():
    ends = {v: state(after_updates("spr", f"spr.variant={v}")) for v in "ABC"}
    assert all(not torch.equal(ends[a], ends[b]) for a, b in ("AB", "BC", "AC"))
    assert torch.equal(state(after_updates("spr")), ends["A"])  # the default
    assert torch.equal(state(after_updates("spr", "quirks.two_adams=false", "quirks.double_clip=false")), ends["C"])


def of_base(agent):
    modules = (agent.critic, agent.actor, agent.target)
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()] + [agent.log_alpha.detach()[None]])


@pytest.mark.parametrize("method", ["spr", "playvirtual"])
def test_without_its_weights_it_is_the_baseline(method):
    settings = ["spr.weight=0"] + (["playvirtual.weight=0"] if method == "playvirtual" else [])
    agent = after_updates(method, *settings)
    assert agent.objective is None and torch.equal(of_base(agent), of_base(after_updates("baseline")))
    assert not torch.equal(of_base(after_updates(method)), of_base(after_updates("baseline")))


@pytest.mark.parametrize("method", ["spr", "playvirtual"])
def test_a_loss_of_0_leaves_the_base_alone(method):
    """Drawn, computed, stepped and followed by its targets, but with weights of 0: the base's parameters are those of the Baseline."""
    agent, config = make(method)
    replay, o = fill(agent, config), agent.objective
    o.scale, o.full_weight = 0.0, 0.0
    draw, step, stream = agent.draw_sequences, agent.update_objective, []

    def draw_aside(*arguments):  # the Baseline does not make these draws
        stream.append(agent.generator.get_state())
        return draw(*arguments)

    def step_aside(*arguments):
        metrics = step(*arguments)
        agent.generator.set_state(stream.pop())
        return metrics

    agent.draw_sequences, agent.update_objective = draw_aside, step_aside
    old = copy.deepcopy(o.target_projection.state_dict())
    for number in range(3):
        metrics = agent.update(replay, 60 + number).metrics
        assert metrics["loss/spr"] > 0.1 and metrics["grad/objective"] == 0
    assert torch.equal(of_base(agent), of_base(after_updates("baseline")))
    assert not torch.equal(o.target_projection[0].weight, old["0.weight"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["spr.steps=0"], "spr.steps=0 must be between 1"),
        (["spr.variant=D"], "spr.variant=D is unknown"),
        (["method=baseline", "spr.steps=3"], "no effect with method=baseline"),
        (["spr.variant=B", "spr.clip=1"], "no effect with spr.variant=B: it takes spr.variant=A or C"),
        (["spr.variant=C", "quirks.two_adams=false"], "no effect with spr.variant=C: it takes spr.variant=A"),
        (["spr.variant=B", "quirks.half_spr_lr=false"], "no effect with spr.variant=B"),
        (["quirks.two_adams=false", "spr.encoder_lr=1e-4"], "no effect with quirks.two_adams=false: it takes quirks.two_adams=true"),
        (["playvirtual.copies=3"], "no effect with method=spr"),
        (["spr.steps=60"], "train.random_steps=50 must be at least spr.steps . 3 = 63"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        make("spr", *arguments)


@pytest.mark.parametrize("method", ["spr", "playvirtual"])
def test_its_own_views(method):
    """Crops that reach the far edge, and intensity; the critic's crops do not reach it, and have no intensity."""
    agent = make_agent(read_config([f"method={method}", "preset=paper", "spr.batch_size=4"]), 1, FP32)
    for augment, offsets in ((agent.objective.augment, 17), (agent.augment, 16)):
        stage = augment.draw(2000, 9, agent.generator).stages[0]
        assert set(stage.rows[:, 0].tolist()) == set(stage.columns[:, 0].tolist()) == set(range(offsets))
        assert (stage.factor is None) == (augment is agent.augment)
    factor = agent.objective.augment.draw(2000, 9, agent.generator).stages[0].factor
    assert 0.9 <= factor.min() < 0.92 and 1.08 < factor.max() <= 1.1
