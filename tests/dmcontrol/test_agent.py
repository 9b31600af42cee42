"""How the agent starts, what each update moves, and what the quirks switch."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from DMControl.core.machine import Precision
from DMControl.core.method.augment import Augmentation
from DMControl.core.method.frames import Frames
from DMControl.core.method.sequence import Sequence
from DMControl.methods import make_agent
from DMControl.replay import Replay
from DMControl.settings import read_config

CPU = torch.device("cpu")


def make(*arguments, dtype=torch.float32, seed=1):
    config = read_config(["preset=debug", f"seed={seed}", *arguments])
    return make_agent(config, 2, Precision(CPU, dtype))


def fill(agent, size=40, steps=120, length=40):
    replay = Replay(500, length, 3, size, 2, CPU, agent.generator)
    rng = np.random.default_rng(0)
    for t in range(steps):
        if t % length == 0:
            replay.start(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), float(rng.random()), False, t % length == length - 1, frame)
    return replay


def snapshot(module):
    return copy.deepcopy(module.state_dict())


def moved(before, module) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


def test_fc_reinit():
    """MLR redraws the encoder's fc; the target critic keeps the old one; the momentum branch has draws of its own."""
    agent, o = make(), make().objective
    fc, std = agent.critic.encoder.head.fc.weight, 0.0108
    assert fc.abs().max() <= 0.02 and fc.std().item() == pytest.approx(std, rel=0.05)
    old = agent.target.encoder.head.fc.weight
    assert torch.allclose(old @ old.T, torch.eye(len(old)), atol=1e-4)  # orthogonal, as the Baseline's
    for online, target in ((o.encoder.head.fc, o.target_encoder.head.fc), (o.projection[0], o.target_projection[0])):
        assert not torch.equal(online.weight, target.weight)
        assert target.weight.std().item() == pytest.approx(std, rel=0.1)
    assert torch.equal(agent.critic.encoder.trunk.convs[0].weight, agent.target.encoder.trunk.convs[0].weight)

    clean = make("quirks.fc_reinit=false")
    assert torch.equal(clean.critic.encoder.head.fc.weight, clean.target.encoder.head.fc.weight)
    for name, p in clean.objective.encoder.state_dict().items():
        assert torch.equal(p, clean.objective.target_encoder.state_dict()[name])
    assert torch.equal(clean.objective.projection[0].weight, clean.objective.target_projection[0].weight)
    base = make("method=baseline")
    assert base.objective is None and torch.equal(base.critic.encoder.head.fc.weight, base.target.encoder.head.fc.weight)


def test_convolutions_start_delta_orthogonal():
    weight = make().critic.encoder.trunk.convs[1].weight
    taps = weight.clone()
    middle = taps[:, :, 1, 1].clone()
    taps[:, :, 1, 1] = 0
    assert taps.abs().sum() == 0 and torch.allclose(middle @ middle.T, 2 * torch.eye(len(middle)), atol=1e-4)


def test_actor_and_critic_share_convolutions():
    agent = make()
    names = {id(p) for p in agent.critic.encoder.trunk.parameters()}
    assert not names & {id(p) for p in agent.actor.parameters()}
    assert names <= {id(p) for p in agent.critic_optimizer.parameters}
    assert names <= {id(p) for p in agent.objective_optimizers[0].parameters}
    targets = {id(p) for m in (agent.objective.target_encoder, agent.objective.target_projection) for p in m.parameters()}
    assert not targets & {id(p) for p in agent.objective_optimizers[0].parameters}


def test_what_each_step_moves():
    agent = make("mlr.warmup=0")
    replay = fill(agent)
    batch = replay.sample(8)
    view = agent.augment.draw(8, 9, agent.generator)
    states = {n: snapshot(m) for n, m in (("critic", agent.critic), ("actor", agent.actor), ("target", agent.target))}
    agent.update_critic(batch, view)
    assert moved(states["critic"], agent.critic) == set(states["critic"])
    assert not moved(states["actor"], agent.actor) and not moved(states["target"], agent.target)

    critic, objective = snapshot(agent.critic), snapshot(agent.objective)
    agent.update_objective(replay.sample_sequences(4, 4))
    assert all(k.startswith("encoder.") for k in moved(critic, agent.critic)) and moved(critic, agent.critic)
    changed = moved(objective, agent.objective)
    assert {k.split(".")[0] for k in changed} == {"encoder", "embed_action", "decoder", "projection", "prediction"}

    critic, actor = snapshot(agent.critic), snapshot(agent.actor)
    agent.update_actor(batch.obs, view)
    assert not moved(critic, agent.critic) and moved(actor, agent.actor) == set(actor)

    target, objective = snapshot(agent.target), snapshot(agent.objective)
    agent.momentum.step()
    agent.objective.move_targets()
    for name, old in target.items():
        rate = 0.05 if name.startswith("encoder") else 0.01
        expected = old + rate * (agent.critic.state_dict()[name] - old)
        torch.testing.assert_close(agent.target.state_dict()[name], expected)
    for name, old in objective.items():
        if name.startswith("target_"):
            expected = old + 0.05 * (objective[name.removeprefix("target_")] - old)
            torch.testing.assert_close(agent.objective.state_dict()[name], expected)


def test_actor_and_targets_every_second_update():
    agent = make()
    replay = fill(agent)
    for number in range(4):
        actor, target = snapshot(agent.actor), snapshot(agent.target)
        agent.update(replay, 0)
        assert bool(moved(actor, agent.actor)) == bool(moved(target, agent.target)) == (number % 2 == 0)


def test_half_rate_and_rl_augmentation():
    assert make("mlr.lr=1e-3").objective_optimizers[0].lr == 5e-4
    assert make("mlr.lr=1e-3", "quirks.half_mlr_lr=false").objective_optimizers[0].lr == 1e-3
    agent = make()
    assert agent.augment.names == ("crop",) and agent.objective.augment.names == ("crop", "intensity")
    assert not agent.augment.last_offset and agent.objective.augment.last_offset
    agent = make("quirks.rl_without_intensity=false", "quirks.rl_crop_misses_last=false")
    assert agent.augment.names == ("crop", "intensity") and agent.augment.last_offset


def test_one_mask_for_the_batch():
    for one in (True, False):
        agent = make(f"quirks.one_mask_per_batch={str(one).lower()}", "chunk=1000")
        replay = fill(agent)
        window = replay.sample_sequences(4, 4)
        (part,) = agent.objective.parts(window, agent.generator)
        hidden = part.hidden.view(4, 4, 40, 40)
        assert bool((hidden == hidden[:1]).all()) == one


def test_acting_reads_the_centre_crop():
    agent = make()
    store = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8)
    obs = Frames(store, torch.arange(3)[None])
    edge = store.clone()
    edge[:, :, :2] = edge[:, :, -2:] = 0
    edge[..., :2] = edge[..., -2:] = 0

    def act(obs, explore=False):
        actions, state = agent.act(obs, agent.begin(1), explore)
        assert state.shape == (1, 0)  # it remembers nothing
        return actions

    same = act(Frames(edge, obs.index))
    assert np.array_equal(act(obs), same)
    edge[:, :, 10:30] = 0
    assert not np.array_equal(act(Frames(edge, obs.index)), same)
    sampled = np.stack([act(obs, explore=True) for _ in range(50)])
    assert sampled.std() > 0.05 and np.abs(sampled).max() <= 1


def test_the_update_never_waits_for_numbers(monkeypatch):
    """No .item(), .cpu(), .tolist() or .numpy() inside an update."""
    agent = make()
    replay = fill(agent)
    agent.update(replay, 0)

    def forbidden(*args, **kwargs):
        raise AssertionError("the update reads a number from the device")

    for name in ("item", "cpu", "tolist", "numpy", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, forbidden)
    agent.update(replay, 0)  # one with an actor step, one without: forbidden() raises if a number is read
    agent.update(replay, 0)
    assert agent.updates == 3


def test_augmentation_is_drawn_once_per_update_whatever_the_chunk():
    a = Augmentation(("crop", "intensity"), 40, 36)
    view = a.draw(10, 9, torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([view[:4].stages[0].factor, view[4:].stages[0].factor]), view.stages[0].factor)


def test_no_good_window_means_no_step_into_nothing():
    """Episodes shorter than a window: MLR has nothing to learn from, and nothing becomes NaN."""
    agent = make()
    replay = Replay(500, 3, 3, 40, 2, CPU, agent.generator)
    for _ in range(10):
        replay.start(np.zeros((40, 40, 3), np.uint8))
        for t in range(3):
            replay.add(np.zeros(2, np.float32), 0.0, False, t == 2, np.zeros((40, 40, 3), np.uint8))
    agent.update(replay, 0)
    assert all(torch.isfinite(p).all() for p in agent.critic.parameters())


def test_missing_windows_count_neither_above_nor_below_the_line(monkeypatch):
    """Episodes of which few windows hold no end: the loss and its gradient are means over the good windows alone, whatever the parts."""
    agent = make("chunk=1")  # one window at a time
    replay = fill(agent, steps=300, length=6)
    objective, seen = agent.objective, []
    window = replay.sample_sequences(objective.batch_size, objective.window)
    good = window.valid > 0
    assert 0 < good.sum() < len(window), "some are missing"
    stream = agent.generator.get_state()
    (part,) = whole(objective, window, agent.generator)
    losses, _ = objective.loss(part)  # (B,)
    expected = torch.autograd.grad(losses[good].mean(), agent.objective_optimizers[0].parameters)
    agent.generator.set_state(stream)
    (optimizer,) = agent.objective_optimizers
    monkeypatch.setattr(optimizer, "step", lambda: seen.extend(p.grad for p in optimizer.parameters))
    metrics = agent.update_objective(window)
    assert metrics["loss/mlr"].item() == pytest.approx(losses[good].mean().item(), rel=1e-5)
    for got, grad in zip(seen, expected, strict=True):
        assert torch.allclose(got, grad, rtol=1e-3, atol=1e-6 * grad.abs().max().item() + 1e-12)


def whole(objective, window, generator):
    """The update's draws, in one part."""
    chunk, objective.chunk = objective.chunk, None
    parts = list(objective.parts(window, generator))
    objective.chunk = chunk
    return parts


def test_diagnosis_tells_whether_the_answer_depends_on_what_was_seen():
    agent = make("mlr.target=pixels")  # which cannot collapse
    replay, o = Replay(500, 40, 3, 40, 2, CPU, agent.generator), agent.objective
    rng = np.random.default_rng(0)
    colours = [np.full((40, 40, 3), colour, np.uint8) for colour in rng.integers(0, 256, (10, 3))]
    for t in range(400):  # each episode has a colour of its own
        if t % 40 == 0:
            replay.start(colours[t // 40])
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), 0.0, False, t % 40 == 39, colours[t // 40])
    window = replay.sample_sequences(64, o.window, torch.Generator().manual_seed(3))

    def dependence(chunk=None):
        o.chunk = chunk
        with torch.no_grad():
            return o.dependence(window, torch.Generator().manual_seed(1))

    first = dependence()
    assert abs(first["mlr/loss_own"] - first["mlr/loss_other"]) < 0.02, "before the training nothing is told apart"
    assert dependence(chunk=1) == pytest.approx(first, rel=1e-4)
    generator, o.chunk = torch.Generator().manual_seed(1), None
    (part,) = o.parts(window, generator)
    assert first["mlr/loss_own"] == pytest.approx(o.loss(part)[1]["loss/mlr"].item(), rel=1e-5), "the training's own loss"
    for _ in range(300):
        agent.update_objective(replay.sample_sequences(o.batch_size, o.window))
    trained = dependence()
    assert trained["mlr/loss_own"] < 0.7 * trained["mlr/loss_other"], trained
    with torch.no_grad():
        for p in o.prediction[-1].parameters():
            p.fill_(1.0 if p.dim() == 1 else 0.0)
    blind = dependence()
    assert blind["mlr/loss_own"] == pytest.approx(blind["mlr/loss_other"], rel=0.02), "an answer that is always the same"
    assert blind["mlr/loss_constant"] < blind["mlr/loss_own"]
    alone = dataclasses.replace(window, valid=torch.zeros_like(window.valid))
    assert set(o.diagnose(alone, torch.Generator())[0]) == {"mlr/mask_ratio", "mlr/target_distance"}, "no sequence to look at"
    one, each = window[:1], torch.ones(4)
    steps = torch.zeros(4, o.window)
    same = Sequence(Frames(one.obs.store, one.obs.index.repeat(4, 1)), one.action.repeat(4, 1, 1), steps, steps, each, each)
    assert "mlr/loss_other" not in o.diagnose(same, torch.Generator())[0], "a sequence is not another one than itself"
