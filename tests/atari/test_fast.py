"""Each fast path against the plain fp32 computation, over six consecutive updates: losses, parameters, targets, priorities."""

import copy

import numpy as np
import pytest
import torch

from Atari.core.machine import Precision
from Atari.env import Step
from Atari.methods import METHODS, make_agent
from Atari.settings import read_config
from Atari.train import make_replay
from tests import on_gpu, on_meta, plain
from tests.operations import Operations

CPU = torch.device("cpu")


def make(*arguments, dtype=torch.float32, device=CPU):
    config = read_config(["preset=debug", "rainbow.batch_size=16", *arguments])
    agent = make_agent(config, 4, Precision(device, dtype))
    replay, size = make_replay(config, agent), config.env.size
    rng = np.random.default_rng(0)
    replay.start(rng.integers(0, 256, (size, size, 1), dtype=np.uint8))
    for t in range(150):
        over = t % 40 == 39
        frame = rng.integers(0, 256, (size, size, 1), dtype=np.uint8)
        replay.add(int(rng.integers(4)), Step(frame, float(rng.integers(-1, 2)), 0.0, over, False, over))
        if over:
            replay.start(frame)
    return agent, replay


def follow(agent, replay, updates=6):
    modules = [agent.network, agent.target] + ([agent.objective] if agent.objective is not None else [])

    def update():
        metrics = agent.update(replay, 100).metrics
        return metrics | {"agent/priorities": replay.row_sum.sum()}

    return plain.follow(agent, update, modules, updates)


def plain_updates(patch, *arguments, device=CPU):
    plain.make_plain(patch, "Atari")
    agent, replay = make(*arguments, "mlr.chunk=0", device=device)
    plain.plain_adam(agent.optimizer)
    return follow(agent, replay)


@pytest.mark.parametrize("setting", [["mlr.chunk=3"], ["augment.order=[shift]"], ["mlr.decoder.width=12"]], ids=" ".join)
@pytest.mark.parametrize("layout", ["channels_last", "planar"])
def test_fast_is_plain(monkeypatch, setting, layout):
    agent, replay = make(*setting)
    for network in (agent.network, agent.target):
        network.trunk.planar_gradients = layout == "planar"
    fast = follow(agent, replay)
    expected = plain_updates(monkeypatch, *[a for a in setting if not a.startswith("mlr.chunk")])
    plain.assert_agreement(fast, expected, loss=1e-3, parameter=2e-6)


def test_bf16_follows_plain_fp32(monkeypatch):
    """Losses and priorities within 3%, parameters and targets as far as bf16 goes; master weights stay fp32."""
    agent, replay = make(dtype=torch.bfloat16)
    fast = follow(agent, replay)
    assert all(p.dtype == torch.float32 for p in agent.network.parameters())
    expected = plain_updates(monkeypatch)
    for (losses, _), (others, _) in zip(fast, expected, strict=True):
        for name in ("loss/rl", "loss/mlr", "agent/priorities"):
            assert losses[name] == pytest.approx(others[name], rel=0.03, abs=0.01)
    apart, moved = plain.apart(fast, expected)
    assert 0 < apart < 0.05 * moved


@pytest.mark.parametrize("method", METHODS)
def test_updates_are_the_same_operations(method):
    """What a recorded update needs: all that changes between updates stands in tensors, and nothing is copied from the host."""
    agent, replay = make(f"method={method}")
    seen = []
    for number in range(4):
        with Operations() as operations:
            agent.update(replay, 100 + 10 * number)
        seen.append(operations.seen)
        replay.add(1, Step(np.full((agent.augment.size, agent.augment.size, 1), number, np.uint8), 0.0, 0.0, False, False, False))
    # the exponent of the importance weights is put on the device before a recording is played
    seen = [[o for o in one if o[0] != "aten.fill_.Scalar" or o[1] != [()]] for one in seen]
    assert len(seen[1]) > 200 and seen[1] == seen[2] == seen[3]
    assert not [name for name, _, _ in seen[1] if any(word in name for word in ("_local_scalar_dense", "nonzero", "lift_fresh"))]


@pytest.mark.parametrize("method", METHODS)
def test_an_update_stays_on_its_device(monkeypatch, method):
    agent, replay = make(f"method={method}", device=on_meta.use(monkeypatch, "Atari"))
    for _ in range(2):
        metrics = agent.update(replay, 100).metrics
        assert {value.device for value in metrics.values()} == {on_meta.DEVICE}
    parameters = agent.optimizer.parameters
    assert len(parameters) >= 8 and all(p.device == on_meta.DEVICE for p in parameters)


@pytest.mark.cuda
@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_update_is_the_plain_one(method):
    """Twelve updates with new frames in between, recorded from the fourth on, against launching each kernel: fp32, the same draws.

    Losses, priorities, parameters and targets after each of them.
    """
    runs = []
    for compile in ("true", "false"):
        agent, replay = make(f"method={method}", f"compile={compile}", device=on_gpu.device())
        runs.append([])
        for number in range(12):
            runs[-1] += follow(agent, replay, 1)
            frame = np.full((agent.augment.size, agent.augment.size, 1), 20 * number, np.uint8)
            replay.add(1, Step(frame, 1.0, 0.0, False, False, False))
        assert bool(agent.recorder.recorded) == (compile == "true")
    plain.assert_agreement(*runs, loss=1e-2, parameter=5e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("method", METHODS)
def test_no_copy_and_no_wait_inside_an_update_on_a_gpu(method):
    agent, replay = make(f"method={method}", "compile=true", device=on_gpu.device(), dtype=torch.bfloat16)
    on_gpu.assert_recorded_without_copy_or_wait(agent, replay, 100)


@pytest.mark.cuda
def test_updates_are_recorded_again_after_a_save_is_loaded():
    """The gradients of the first recording are still alive when the second one begins."""
    agent, replay = make("method=mlr", "compile=true", device=on_gpu.device())
    follow(agent, replay, 6)
    networks, state = copy.deepcopy(agent.networks()), copy.deepcopy(agent.state_dict())
    priorities = copy.deepcopy(replay.state_dict())
    before = follow(agent, replay, 6)
    agent.load_networks(networks)
    agent.load_state_dict(state)
    replay.load_state_dict(priorities, [], None)
    after = follow(agent, replay, 6)
    assert agent.recorder.active and len(agent.recorder.recorded) == 1
    plain.assert_agreement(after, before, loss=1e-2, parameter=5e-6)


@pytest.mark.cuda
def test_fast_is_plain_on_a_gpu(monkeypatch):
    device = on_gpu.device()
    fast = follow(*make("compile=false", device=device))
    plain.assert_agreement(fast, plain_updates(monkeypatch, "compile=false", device=device), loss=1e-2, parameter=5e-6)
