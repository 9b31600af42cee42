"""SPR: what pairs with what, its loss and mask, its dynamics and targets, what reaches the Rainbow, and that it comes back from a save."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from Atari.core.errors import UserError
from Atari.core.machine import Precision
from Atari.core.method.frames import Frames
from Atari.core.method.sequence import Sequence
from Atari.methods import make_agent
from Atari.methods.spr import Dynamics
from Atari.settings import read_config
from Atari.train import make_replay, make_trainer
from tests.atari.test_fast import make
from tests.atari.turning_world import know, play, raised, windows_of
from tests.turning import TURN, Angle, turn

FP32 = Precision(torch.device("cpu"), torch.float32)


def make_spr(*settings, method="spr"):
    return make(f"method={method}", "rainbow.batch_size=8", *settings)


def part_of(agent, replay, n=8):
    """Windows with latents that need a gradient."""
    batch = replay.sample(n, 0.5)
    state = agent.network.encoder(agent._view(batch.obs))
    return agent.objective.draw(replace(batch.sequence, state=state), agent.generator)


def given(agent, distances, done=None):
    """The loss of windows whose prediction k steps ahead is at this distance (0, 2 or 4) from its target, (B, K)."""
    o, places = agent.objective, {0: (2.0, 0.0), 2: (0.0, 3.0), 4: (-1.0, 0.0)}
    o.dynamics.roll = lambda state, actions: list(torch.tensor([[places[d] for d in row] for row in distances]).unbind(1))
    o.projection, o.prediction = nn.Identity(), nn.Identity()
    b, k = len(distances), o.steps
    done = torch.zeros(b, k + 1) if done is None else torch.tensor(done, dtype=torch.float32)
    sequence = replace(make_sequence(b, k + 1), done=done)
    return o.forward_loss(sequence, torch.tensor([1.0, 0.0]).expand(b, k, 2))


def make_sequence(b, k):
    zeros, ones = torch.zeros(b, k), torch.ones(b)
    return Sequence(Frames(torch.zeros(1, 1, 1, 1), torch.zeros(b * k, 1).long()), zeros.long(), zeros, zeros, ones, ones, ones)


def norm(parameters):
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm().item()


# --- 1 to 4: pairs, loss and mask


@pytest.mark.parametrize("includes_end", ["true", "false"])
def test_what_is_predicted_k_steps_ahead_is_the_kth_observation(includes_end):
    """In a world whose dynamics are known, the loss is 0 if each action leads to the observation after it, and not otherwise. Windows
    that reach beyond a game's end count no target that is not the game's."""
    config = read_config(["preset=debug", "method=spr", "augment.order=[shift]", "spr.steps=5", f"quirks.mask_includes_end={includes_end}"])
    agent = make_agent(config, 4, FP32)
    replay = make_replay(config, agent)
    play(replay, config.env.size)
    part = windows_of(agent, replay)
    ends = part.sequence.done[:, :5].any(1)
    assert 10 < ends.sum() < 50 and agent.objective.window == 6
    for sense in (1, -1):
        know(agent.objective, lambda z, a, sense=sense: turn(z, sense * TURN * raised(a)))
        loss, metrics = agent.objective.loss(part)
        found = [metrics[f"loss/spr_{k}"].item() for k in range(1, 6)]
        assert max(found) < 1e-6 if sense == 1 else min(found) > 0.1, found
        assert (loss.max() < 1e-5) == (sense == 1)


def test_the_loss_is_0_for_parallel_2_for_orthogonal_and_4_for_opposite_vectors():
    agent = make_agent(read_config(["preset=paper", "method=spr", "encoder.filters=[4,4,4]", "rainbow.hidden=8"]), 4, FP32)
    loss, metrics = given(agent, [[0, 2, 4, 2, 0], [0, 0, 0, 0, 4]])
    assert [metrics[f"loss/spr_{k}"].item() for k in range(1, 6)] == pytest.approx([0, 1, 2, 1, 2])
    assert metrics["loss/spr"].item() == pytest.approx(1.2)
    assert loss.tolist() == pytest.approx([5 * 8 / 5, 5 * 4 / 5])  # five times the mean over five steps
    assert agent.window == 6


@pytest.mark.parametrize(("includes_end", "counting"), [("true", 4 * (0 + 2 + 4)), ("false", 4 * (0 + 2 + 4) + 16)])
def test_what_the_end_of_an_episode_masks(includes_end, counting):
    """An end at step j drops the targets from j on; without the quirk those after it. The mean is over all K steps all the same."""
    agent, _ = make_spr("spr.weight=4", "spr.steps=4", f"quirks.mask_includes_end={includes_end}")
    done = [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0]]
    loss, metrics = given(agent, [[2, 4, 2, 4]] * 4, done)
    kept = {"true": [4, 1, 0, 0], "false": [4, 2, 0, 1]}[includes_end]
    assert loss.tolist() == [sum((2, 4, 2, 4)[:n]) for n in kept]
    means = [metrics[f"loss/spr_{k}"].item() for k in range(1, 5)]
    assert means == [2, 4, 2, 4]  # over the targets that count
    values = [v for n in kept for v in (2, 4, 2, 4)[:n]]
    assert metrics["loss/spr"].item() == pytest.approx(sum(values) / len(values))


def test_actions_after_the_end():
    """They are the next game's, or with the quirk off none at all."""
    for quirk in ("true", "false"):
        agent, _ = make_spr("spr.steps=3", f"quirks.actions_run_on={quirk}")
        seen = []
        agent.objective.dynamics.roll = lambda state, actions, seen=seen: seen.append(actions) or [torch.zeros(2, 3)] * 3
        agent.objective.projection = agent.objective.prediction = nn.Identity()
        sequence = replace(make_sequence(2, 4), action=torch.tensor([[1, 2, 3, 0]] * 2), done=torch.tensor([[0, 1.0, 0, 0], [0, 0, 0, 0]]))
        agent.objective.forward_loss(sequence, torch.ones(2, 3, 3))
        chosen = torch.eye(4)[[1, 2, 3]]
        assert torch.equal(seen[0][1], chosen)
        assert torch.equal(seen[0][0], chosen if quirk == "true" else chosen * torch.tensor([[1.0], [1.0], [0.0]]))


# --- 5 to 8: networks


@pytest.mark.parametrize("lag", ["true", "false"])
def test_targets_are_the_online_networks_of_one_update_ago(lag):
    agent, replay = make_spr(f"quirks.targets_lag={lag}")
    o, head = agent.objective, agent.network.head
    pairs = ((agent.network.trunk, o.target_encoder.trunk), (head.value_hidden.mean, o.target_projection.value),
             (head.advantage_hidden.mean, o.target_projection.advantage))  # fmt: skip
    for _ in range(2):
        before = [copy.deepcopy(online.state_dict()) for online, _ in pairs]
        agent.update(replay, 100)
        for (online, target), old in zip(pairs, before, strict=True):
            for name, value in target.state_dict().items():
                assert torch.equal(value, old[name] if lag == "true" else online.state_dict()[name])
                assert not torch.equal(old[name], online.state_dict()[name])
    assert not [p for m in (o.target_encoder, o.target_projection) for p in m.parameters() if p.grad is not None or p.requires_grad]


def test_noise_of_the_head_has_no_part_in_the_loss():
    agent, replay = make_spr()
    part = part_of(agent, replay)
    before = agent.objective.loss(part)[0], agent.network.read(part.sequence.state, noisy=True)
    agent.network.head.resample(agent.generator)
    after = agent.objective.loss(part)[0], agent.network.read(part.sequence.state, noisy=True)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    with torch.no_grad():
        agent.network.head.advantage_hidden.mean.weight[0] += 1.0
    assert not torch.equal(agent.objective.loss(part)[0], before[0])  # it reads the head's own layers


def test_dynamics_layer_by_layer():
    torch.manual_seed(0)
    dynamics, latent = Dynamics(6, 5, 4, FP32), torch.rand(8, 150)
    action = torch.eye(4)[torch.arange(8) % 4]
    with torch.no_grad():
        dynamics.norm.weight.uniform_(0.5, 2)
        dynamics.norm.bias.uniform_(-1, 1)
    assert sum(p.numel() for p in Dynamics(64, 7, 4, FP32).parameters()) == (68 * 9 + 1) * 64 + 128 + (64 * 9 + 1) * 64
    planes = action[:, :, None, None].expand(-1, -1, 5, 5)
    x = torch.cat([latent.view(8, 6, 5, 5), planes], 1)
    x = nn.functional.conv2d(x, dynamics.first.weight, dynamics.first.bias, padding=1).relu()
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    x = (x - mean) / (var + 1e-5).sqrt() * dynamics.norm.weight.view(-1, 1, 1) + dynamics.norm.bias.view(-1, 1, 1)
    x = nn.functional.conv2d(x, dynamics.second.weight, dynamics.second.bias, padding=1).relu().flatten(1)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    out = dynamics(latent, action)
    torch.testing.assert_close(out, (x - low) / (high - low), rtol=1e-4, atol=1e-5)
    assert (out.amin(1) == 0).all() and (out.amax(1) == 1).all()
    torch.testing.assert_close(dynamics.norm.running_mean, 0.1 * mean.flatten(), rtol=1e-4, atol=1e-6)
    two = dynamics.roll(latent, torch.stack([action, action.roll(1, 0)], 1))
    again = dynamics(dynamics(latent, action), action.roll(1, 0))
    torch.testing.assert_close(two[1], again)


def test_an_action_is_a_constant_plane_and_changes_the_prediction():
    agent, replay = make_spr("spr.steps=2")
    o, seen = agent.objective, []
    o.dynamics.first.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    part = part_of(agent, replay)
    loss, _ = o.loss(part)
    latents = agent.network.trunk.channels
    for k, x in enumerate(seen):
        planes = x[:, latents:]
        assert torch.equal(planes[:, :, 0, 0], torch.eye(4)[part.sequence.action[:, k]])
        assert torch.equal(planes, planes[:, :, :1, :1].expand_as(planes))
    other = replace(part, sequence=replace(part.sequence, action=(part.sequence.action + 1) % 4))
    assert (o.loss(other)[0] - loss).abs().max() > 1e-4
    action = part.sequence.action.clone()
    action[:, -1] = (action[:, -1] + 1) % 4  # the window's last action leads out of it
    assert torch.equal(o.loss(replace(part, sequence=replace(part.sequence, action=action)))[0], loss)


# --- 9 and 10: what reaches the Rainbow


def test_importance_weights_scale_the_loss_of_each_window():
    agent, replay = make_spr()
    batch = replay.sample(8, 0.5)
    view = agent.augment.draw(8, batch.obs.channels, agent.generator)
    stream, found = agent.generator.get_state(), []
    weights = [torch.linspace(0, 1, 8), torch.linspace(0, 1, 8).flip(0), torch.ones(8), torch.zeros(8)]
    for weight in weights:
        agent.optimizer.zero_grad()
        agent.generator.set_state(stream)
        agent.objective_gradient(replace(batch, weight=weight), agent.network.encoder(agent.augment.view(batch.obs, view)))
        found.append(torch.cat([p.grad.flatten() for p in (*agent.objective.dynamics.parameters(), *agent.network.trunk.parameters())]))
    torch.testing.assert_close(found[0] + found[1], found[2], rtol=1e-3, atol=1e-5)
    assert found[3].abs().max() == 0 and (found[0] - found[1]).abs().max() > 1e-3
    agent.generator.set_state(stream)
    part = agent.objective.draw(replace(batch.sequence, state=agent.network.encoder(agent.augment.view(batch.obs, view))), agent.generator)
    loss = (weights[0] * agent.objective.loss(part)[0]).mean()
    whole = torch.autograd.grad(loss, [*agent.objective.dynamics.parameters(), *agent.network.trunk.parameters()])
    torch.testing.assert_close(found[0], torch.cat([g.flatten() for g in whole]), rtol=1e-3, atol=1e-5)  # through the shared latents too


def test_the_loss_has_no_part_in_the_priorities():
    after = []
    for weight in (5, 500):
        agent, replay = make_spr(f"spr.weight={weight}")
        before = replay.leaf.clone()
        agent.update(replay, 100)
        after.append(replay.leaf)
    assert torch.equal(*after) and not torch.equal(after[0], before)


def test_the_latents_are_those_of_the_rl_loss_and_are_encoded_once():
    agent, replay = make_spr()
    seen, states, views = [], [], []
    agent.network.encoder.register_forward_hook(lambda module, inputs, out: seen.append((inputs[0], out)))
    log_p, loss, draw = agent.network.read, agent.objective.loss, agent.augment.draw
    agent.network.read = lambda latent, noisy: states.append(latent) or log_p(latent, noisy)
    agent.objective.loss = lambda part: states.append(part.sequence.state) or loss(part)
    agent.augment.draw = lambda *how: views.append(draw(*how)) or views[-1]
    agent.update(replay, 100)
    assert len(seen) == 2 and not seen[0][1].requires_grad and seen[1][1].requires_grad  # s_{t+n} for the choice of a*, and s_t
    *_, rl, objective = states
    assert rl is objective and rl.is_leaf and torch.equal(rl, seen[1][1])
    assert [len(view.stages[0].rows) for view in views] == [8, 8, 8, 8 * agent.objective.steps]


@pytest.mark.parametrize("unclipped", ["true", "false"])
def test_clip_groups(unclipped):
    """Convolutions and head are clipped together, the dynamics alone, the prediction head not at all, or with the dynamics."""
    agent, replay = make_spr("rainbow.clip=1e-3", "spr.weight=100", f"quirks.unclipped_heads={unclipped}")
    metrics, o = agent.update(replay, 100).metrics, agent.objective
    assert norm(agent.network.parameters()) == pytest.approx(1e-3, rel=1e-3)
    dynamics = [*o.dynamics.parameters(), *(o.prediction.parameters() if unclipped == "false" else [])]
    assert norm(dynamics) == pytest.approx(1e-3, rel=1e-3)
    assert (norm(o.prediction.parameters()) > 1.0) == (unclipped == "true")
    assert set(agent.clipped) == {"network", "dynamics"} and metrics["grad/dynamics"] > 1


def test_a_huge_gradient_of_the_dynamics_leaves_the_others_alone():
    grads = []
    for huge in (1.0, 1e4):
        agent, replay = make_spr("rainbow.clip=10")
        agent.objective.dynamics.norm.weight.register_hook(lambda g, huge=huge: g * huge)
        agent.update(replay, 100)
        grads.append([p.grad.clone() for p in (*agent.network.trunk.parameters(), *agent.objective.prediction.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


# --- off, saved, and refused


def state(agent):
    modules = [agent.network, agent.target]
    return torch.cat([t.detach().double().flatten() for m in modules for t in m.state_dict().values()])


def after_updates(method, *settings):
    agent, replay = make_spr(*settings, method=method)
    for number in range(3):
        agent.update(replay, 100 + number)
    return agent


@pytest.mark.parametrize("method", ["spr", "playvirtual"])
def test_without_its_weights_it_is_the_baseline(method):
    settings = ["spr.weight=0"] + (["playvirtual.weight=0"] if method == "playvirtual" else [])
    agent = after_updates(method, *settings)
    base = state(after_updates("baseline", "baseline.window=4"))
    assert agent.objective is None and torch.equal(state(agent), base)
    assert not torch.equal(state(after_updates(method)), base)


@pytest.mark.parametrize("method", ["spr", "playvirtual"])
def test_a_save_restores_everything(method, tmp_path):
    """Also the running statistics of the batch norms. Three more updates are the same."""
    agent, replay = make_spr(method=method)
    other, _ = make_spr("seed=2", method=method)
    for _ in range(3):
        agent.update(replay, 100)
    torch.save({"networks": agent.networks(), "agent": agent.state_dict()}, tmp_path / "save.pt")
    twin = copy.deepcopy(replay)
    saved = torch.load(tmp_path / "save.pt", weights_only=True)
    other.load_networks(saved["networks"])
    other.load_state_dict(saved["agent"])
    twin.generator = other.generator  # one stream, as in a run
    norms = [m for m in other.objective.modules() if isinstance(m, nn.BatchNorm2d)]
    steps = other.objective.steps
    assert [int(m.num_batches_tracked) for m in norms] == ([3 * steps] if method == "spr" else [6 * steps, 3 * steps])
    for _ in range(3):
        one, two = agent.update(replay, 110).metrics, other.update(twin, 110).metrics
        assert all(torch.equal(one[name], two[name]) for name in one)
    for name, value in agent.objective.state_dict().items():
        assert torch.equal(value, other.objective.state_dict()[name]), name
    assert torch.equal(state(agent), state(other))


def test_the_published_values():
    c = read_config(["method=spr", "preset=paper"])
    assert (c.spr.steps, c.spr.weight, c.spr.tau, c.rainbow.noisy_std) == (5, 5.0, 1.0, 0.5)
    small, base = (read_config([f"method={m}", "preset=small"]) for m in ("spr", "baseline"))
    assert small.rainbow == base.rainbow and small.encoder == base.encoder  # there only the method differs


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["spr.steps=0"], "spr.steps=0 must be between 1"),
        (["spr.tau=2"], "spr.tau=2.* must be between 0"),
        (["spr.stepz=2"], "did you mean spr.steps"),
        (["mlr.tau=0.1"], "no effect with method=spr"),
        (["train.random_steps=8"], r"train.random_steps=8 must exceed 1 \+ rainbow.n_step \+ spr.steps \+ 1 = 8"),
        (["spr.steps=6", "replay.capacity=10"], r"replay.capacity=10 must exceed 1 \+ n_step \+ window = 11"),
        (["rainbow.batch_size=1", "env.size=12"], "rainbow.batch_size=1 is too small for the batch norm"),
    ],
)
def test_mistakes_are_named(arguments, says, tmp_path):
    with pytest.raises(UserError, match=says):
        make_trainer(read_config(["preset=debug", "method=spr", f"runs={tmp_path}", *arguments]), "test")
    assert not list(tmp_path.iterdir())


def test_the_turning_world_tells_colours_apart():
    image = torch.full((2, 4, 3, 3), 10.0)
    image[1, -1] = 135.0
    torch.testing.assert_close(Angle()(image).sum(0), torch.zeros(3), atol=1e-5, rtol=0)  # half a turn
