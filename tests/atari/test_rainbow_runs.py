"""The agent in a run: how it acts, what its updates ask of the device, and that it comes back from a save."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from Atari.core.errors import UserError
from Atari.core.method.frames import Frames


def test_beta_is_linear(make_agent, tiny):
    agent = make_agent(**tiny)
    assert [agent.beta(s) for s in (0, 2_000, 51_000, 100_000, 200_000)] == pytest.approx([0.4, 0.4, 0.7, 1.0, 1.0])


def test_acting(make_agent, tiny):
    agent = make_agent(**tiny)
    obs = Frames.of_images(torch.randint(256, (400, 2, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        q = agent.network(obs.whole(), False).exp() @ agent.value.support
    agent.settings = dataclasses.replace(agent.settings, eval_epsilon=0.0)
    greedy, state = agent.act(obs, agent.begin(400), explore=False)
    assert state.shape == (400, 0)  # it remembers nothing
    assert (greedy == q.argmax(1).numpy()).all()
    with torch.no_grad():
        noisy = (agent.network(obs.whole(), True).exp() @ agent.value.support).argmax(1).numpy()
    assert (agent.act(obs, state, explore=True)[0] == noisy).all() and (noisy != greedy).any()
    assert np.bincount([agent.random_action() for _ in range(400)], minlength=4).min() > 60
    agent.settings = dataclasses.replace(agent.settings, eval_epsilon=0.3)
    some, _ = agent.act(obs, state, explore=False)
    assert 0.1 < (some != greedy).mean() < 0.35
    stream = agent.dice.get_state()
    agent.act(obs, state, explore=False, generator=torch.Generator().manual_seed(1))
    assert torch.equal(agent.dice.get_state(), stream)  # an evaluation does not touch the training's draws


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_update_never_waits_for_a_number(setup):
    agent, replay = setup()
    agent.update(replay, 0)
    with Operations() as seen:
        metrics = agent.update(replay, 0).metrics
    assert not [name for name in seen.names if "_local_scalar_dense" in name or "nonzero" in name]
    assert all(isinstance(v, torch.Tensor) and v.ndim == 0 and not v.requires_grad for v in metrics.values())
    assert {"loss/rl", "loss/mlr", "grad/network", "grad/decoder"} <= metrics.keys()


@pytest.mark.parametrize("mlr", [False, True])
def test_resumed_equals_uninterrupted(setup, mlr, tmp_path):
    agent, replay = setup(mlr=mlr)
    other, other_replay = setup(mlr=mlr, seed=7)
    for _ in range(3):
        agent.update(replay, 10)
    saved = {"networks": agent.networks(), "agent": agent.state_dict(), "replay": replay.state_dict()}
    torch.save(saved, tmp_path / "state.pt")
    frames = {}
    segments = replay.save_frames(lambda first, data, count: frames.setdefault(first, bytes(data)) and {"first": first, "count": count})
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)  # plain tensors and plain values
    other.load_networks(loaded["networks"])
    other.load_state_dict(loaded["agent"])
    other_replay.load_state_dict(loaded["replay"], segments, lambda segment: frames[segment["first"]])
    other_replay.generator = torch.Generator()
    other_replay.generator.set_state(replay.generator.get_state())
    for _ in range(3):
        a, b = agent.update(replay, 11).metrics, other.update(other_replay, 11).metrics
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    for one, two in zip(agent.optimizer.parameters, other.optimizer.parameters, strict=True):
        assert torch.equal(one, two)
    obs = replay.newest()
    assert agent.act(obs, agent.begin(1), explore=False)[0].tolist() == other.act(obs, other.begin(1), explore=False)[0].tolist()
    assert [agent.random_action() for _ in range(9)] == [other.random_action() for _ in range(9)]


def test_bad_range(make_agent, tiny):
    with pytest.raises(UserError, match="v_min"):
        make_agent(**(tiny | {"v_min": 3.0, "v_max": -3.0}))
