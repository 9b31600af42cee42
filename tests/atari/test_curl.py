"""CURL on Rainbow: views, logits, what moves, and what enters the priorities."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from Atari.core.errors import UserError
from Atari.core.machine import Precision
from Atari.core.method.frames import Frames
from Atari.env import Step
from Atari.methods import make_agent
from Atari.settings import read_config
from Atari.train import make_replay

FP32 = Precision(torch.device("cpu"), torch.float32)


def make(*words, seed=0):
    config = read_config(["method=curl", "game=alien", "preset=debug", *words])
    agent = make_agent(config, 4, FP32)
    replay, rng, size = make_replay(config, agent), np.random.default_rng(0), config.env.size
    replay.start(rng.integers(0, 256, (size, size, 1), dtype=np.uint8))
    for _ in range(60):
        replay.add(int(rng.integers(4)), Step(rng.integers(0, 256, (size, size, 1), dtype=np.uint8), 1.0, 0.0, False, False, False))
    replay.update_priorities(torch.arange(len(replay)), torch.linspace(0.1, 3, len(replay)))
    return agent, replay


def flat(parameters):
    return torch.cat([p.detach().flatten() for p in parameters])


def test_the_loss_of_rainbow_sees_no_crops():
    agent, replay = make("rainbow.noisy=false")
    batch = replay.sample(4, 0.5)
    draws = []
    for seed in (1, 2):
        agent.generator.manual_seed(seed)
        draws.append(agent.rl_loss(batch, agent.make_target(batch), agent.encode(batch))[0])
    assert torch.equal(*draws)


def test_views_are_cropped_padded_and_cropped_again():
    agent = make_agent(read_config(["method=curl", "game=alien", "preset=paper"]), 4, FP32)
    view = agent.objective.draw(3000, agent.generator).stages[0]
    assert view.rows.shape == (3000, 84)
    first, last = view.rows.amin(1), view.rows.amax(1)
    assert set(first.tolist()) == set(range(5)) and ((last - first) <= 79).all() and (last <= 83).all()
    steps = view.rows.diff(dim=1)
    assert ((steps == 0) | (steps == 1)).all()
    before, after = (view.rows == first[:, None]).sum(1) - 1, (view.rows == last[:, None]).sum(1) - 1
    assert set(before.tolist()) == set(after.tolist()) == set(range(5)) and (before + after == 4).all()  # replicas of the border
    assert not torch.equal(view.rows, view.columns)


def test_logits():
    """ln B where nothing can be told apart, less where a key is near its own anchor; row i belongs to anchor i."""
    agent, replay = make()
    objective, b = agent.objective, 6
    obs = replay.sample(b, 0.5).obs
    views = [objective.draw(b, agent.generator) for _ in range(2)]
    alike = Frames(obs.store, obs.index[:1].expand(b, -1))
    one = [v[slice(0, 1)] for v in views]
    same = [
        type(v)((dataclasses.replace(v.stages[0], rows=v.stages[0].rows.expand(b, -1), columns=v.stages[0].columns.expand(b, -1)),))
        for v in one
    ]
    assert objective.loss((alike, *same))[0].mean().item() == pytest.approx(math.log(b), rel=1e-5)
    codes = 5 * torch.eye(b, objective.similarity.shape[0])
    objective.describe.forward = objective.target_describe.forward = lambda x: codes
    with torch.no_grad():
        objective.similarity.copy_(torch.eye(len(objective.similarity)))
        loss, metrics = objective.loss((obs, *views))
        assert loss[0] < 0.8 * math.log(b) and metrics["curl/accuracy"] == 1
        objective.similarity.copy_(torch.randn(objective.similarity.shape, generator=torch.Generator().manual_seed(0)))
        logits = objective.logits(obs, *views)
    wanted = codes @ objective.similarity @ codes.T
    torch.testing.assert_close(logits, 0.1 * (wanted - wanted.amax(1, keepdim=True)))
    assert not torch.allclose(logits, 0.1 * (wanted.T - wanted.T.amax(1, keepdim=True)))


def test_what_learns_and_what_follows():
    agent, replay = make("curl.tau=0.25")
    objective, buffers = agent.objective, [b.clone() for b in agent.network.head.buffers()]
    old, start = flat(objective.target_describe.parameters()), flat(objective.describe.parameters())
    old_encoder = flat(objective.target_encoder.parameters())
    agent.update(replay, 100)
    moved = flat(objective.describe.parameters())
    assert not torch.equal(moved, start)
    torch.testing.assert_close(flat(objective.target_describe.parameters()), old + 0.25 * (moved - old))
    now = flat(agent.network.encoder.parameters())  # after the optimiser's step
    torch.testing.assert_close(flat(objective.target_encoder.parameters()), old_encoder + 0.25 * (now - old_encoder))
    assert objective.similarity.grad.norm() > 0 and all(p.grad is None for p in objective.target_describe.parameters())
    assert len(buffers) and not list(objective.describe.buffers())  # its LayerNorms have no weights, and nothing in it is noisy
    assert len(list(objective.describe.parameters())) == 4
    assert start.min() == 0 and 0.9 < start.max() < 1 and old.equal(start)  # weights uniform in [0, 1), biases zero


@pytest.mark.parametrize("game, weight", [("pong", 0.01), ("boxing", 0.01), ("private_eye", 0.01), ("freeway", 0.01), ("alien", 1.0)])
def test_weight_of_each_game(game, weight):
    config = read_config(["method=curl", f"game={game}", "preset=paper"])
    assert config.curl.weight == weight and (config.rainbow.n_step, config.rainbow.target_every, config.rainbow.clip) == (20, 2000, 10)


def test_its_gradient_scales_with_the_mean_importance_weight():
    agent, replay = make()
    batch = replay.sample(8, 0.5)
    gradients = []
    for scale in (1.0, 0.5):
        agent.generator.manual_seed(0)
        agent.optimizer.zero_grad()
        agent.objective_gradient(dataclasses.replace(batch, weight=scale * batch.weight))
        gradients.append(agent.objective.similarity.grad.clone())
    torch.testing.assert_close(gradients[1], 0.5 * gradients[0])
    agent.optimizer.zero_grad()
    agent.generator.manual_seed(0)
    agent.objective_gradient(dataclasses.replace(batch, weight=batch.weight.flip(0)))  # the mean alone counts
    torch.testing.assert_close(agent.objective.similarity.grad, gradients[0])


@pytest.mark.parametrize("inside", [True, False])
def test_priorities(inside):
    agent, replay = make(f"quirks.objective_in_priorities={str(inside).lower()}", "curl.weight=2")
    seen, loss = [], agent.rl_loss
    agent.rl_loss = lambda batch, *given: seen.append((batch.slot, *loss(batch, *given))) or seen[-1][1:]
    metrics = agent.update(replay, 100).metrics
    (slot, _, priority, _), more = seen[0], 2 * metrics["loss/curl"] if inside else 0.0
    first = [slot.tolist().index(s) for s in slot.tolist()]
    torch.testing.assert_close(replay.leaf.flatten()[slot], (priority + more).double().pow(0.5)[first], rtol=1e-5, atol=0)


def test_without_a_weight_it_is_rainbow():
    one, two = make("curl.weight=0"), make()
    assert one[0].objective is None and two[0].objective is not None
    bare = make_agent(read_config(["method=baseline", "game=alien", "preset=debug", "augment.order=[]", "augment.next_views=1"]), 4, FP32)
    bare.generator.set_state(one[0].generator.get_state())
    replay = make("curl.weight=0")[1]
    replay.generator = bare.generator
    for step in range(3):
        one[0].update(one[1], 100 + step)
        bare.update(replay, 100 + step)
    assert torch.equal(flat(one[0].network.parameters()), flat(bare.network.parameters()))


def test_a_cut_that_does_not_fit():
    for words in (["curl.cut=36"], ["curl.cut=9"]):
        with pytest.raises(UserError, match=r"must be less than env\.size=36 and at most twice"):
            make(*words)
