"""Each fast path against the plain fp32 computation, over six consecutive updates: losses, parameters, targets."""

import copy

import numpy as np
import pytest
import torch

from DMControl.agents import sac
from DMControl.core.machine import HostNeeded, Precision
from DMControl.core.method import frames
from DMControl.core.method.optim import warmup_factor, warmup_factor_on_device
from DMControl.methods import METHODS, make_agent
from DMControl.replay import Replay
from DMControl.settings import read_config
from tests import on_gpu, on_meta, plain
from tests.operations import Operations

CPU = torch.device("cpu")
BATCHES = ("sac.batch_size=32", "mlr.batch_size=8")


def make(*arguments, dtype=torch.float32, device=CPU):
    later = ["train.catch_up=0"] if "method=slac" in arguments else []  # its first updates are of the model alone
    config = read_config(["preset=debug", *arguments, *later])
    agent, size = make_agent(config, 2, Precision(device, dtype)), config.image.size
    replay = Replay(500, 40, config.image.stack, size, 2, device, agent.generator)
    rng = np.random.default_rng(0)
    for t in range(120):
        if t % 40 == 0:
            replay.start(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), float(rng.random()), False, t % 40 == 39, frame)
    return agent, replay


def follow(agent, replay, updates=6):
    return plain.follow(agent, lambda: agent.update(replay, 0).metrics, agent.modules.values(), updates)


def one_more(replay, grey, action=0.0, reward=0.0):
    size = replay.store.frames.shape[-1]
    replay.add(np.full(2, action, np.float32), reward, False, False, np.full((size, size, 3), grey, np.uint8))


def separate_convolutions(self, obs, noise):
    """The actor's loss with passes of their own for the actor and for the critic."""
    _, action, log_pi, log_std = self.actor(self.critic.encoder.trunk(obs).detach(), noise)
    q1, q2 = self.critic.values(self.critic.encoder(obs).detach(), action)
    alpha = self.log_alpha.exp()
    entropy_loss = (alpha * (-log_pi - self.target_entropy).detach()).mean()
    return (alpha.detach() * log_pi - torch.min(q1, q2)).mean(), entropy_loss, log_std


def plain_updates(patch, *arguments, device=CPU):
    """The reference: every fast path replaced, whole batches."""
    plain.make_plain(patch, "DMControl")
    patch.setattr(sac.SAC, "actor_losses", separate_convolutions)
    agent, replay = make(*arguments, "chunk=100000", device=device)
    for optimizer in agent.optimizers.values():
        plain.plain_adam(optimizer)
    return follow(agent, replay)


@pytest.mark.parametrize(
    "setting",
    [
        ["chunk=7"],
        ["encoder.centre=[52,78,103]", "encoder.init=kaiming"],
        ["augment.order=[crop,shift,intensity]", "quirks.rl_without_intensity=false"],
        ["method=baseline"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("layout", ["channels_last", "planar"])
def test_fast_is_plain(monkeypatch, setting, layout):
    agent, replay = make(*setting, *(BATCHES if "method=baseline" not in setting else BATCHES[:1]))
    for encoder in (agent.critic.encoder, agent.target.encoder):
        encoder.trunk.planar_gradients = layout == "planar"
    fast = follow(agent, replay)
    chosen = [a for a in setting if not a.startswith("chunk")]
    expected = plain_updates(monkeypatch, *chosen, *(BATCHES if "method=baseline" not in setting else BATCHES[:1]))
    plain.assert_agreement(fast, expected, loss=1e-3, parameter=2e-6)


def test_bf16_follows_plain_fp32(monkeypatch):
    """Losses within 3%, gradients and parameters as far as bf16 goes; master weights stay fp32."""
    batches = ("sac.batch_size=64", "mlr.batch_size=16")
    agent, replay = make(*batches, dtype=torch.bfloat16)
    fast = follow(agent, replay)
    assert all(p.dtype == torch.float32 for p in agent.critic.parameters())
    expected = plain_updates(monkeypatch, *batches)
    for (losses, _), (others, _) in zip(fast, expected, strict=True):
        for name in ("loss/critic", "loss/mlr"):
            assert losses[name] == pytest.approx(others[name], rel=0.03, abs=0.01)
    apart, moved = plain.apart(fast, expected)
    assert 0 < apart < 0.25 * moved


@pytest.mark.parametrize("method", METHODS)
def test_updates_of_one_phase_are_the_same_operations(method):
    """What a recorded update needs: all that changes between updates stands in tensors, and nothing is copied from the host."""
    agent, replay = make(f"method={method}")
    seen, phases = [], []
    agent.recorder = lambda phase, work: phases.append(phase) or work()
    for number in range(6):
        with Operations() as operations:
            agent.update(replay, 0)
        seen.append(operations.seen)
        one_more(replay, number)
    assert len(seen[2]) > 200 and phases[2:] == [phases[2], phases[3]] * 2
    assert seen[2] == seen[4] and seen[3] == seen[5]
    assert len({phases[2], phases[3]}) == agent.period and (seen[2] != seen[3]) == (agent.period == 2)
    forbidden = ("_local_scalar_dense", "nonzero", "lift_fresh")
    assert not [name for name, _, _ in seen[2] + seen[3] if any(word in name for word in forbidden)]


@pytest.mark.parametrize("settings", [*([m] for m in METHODS), ["madi", "masker.type=hard"]])
def test_an_update_stays_on_its_device(monkeypatch, settings):
    monkeypatch.setattr(on_meta.Adam, "may_rest", "masker.type=hard" in settings)
    agent, replay = make(f"method={settings[0]}", *settings[1:], device=on_meta.use(monkeypatch, "DMControl"))
    for _ in range(2):
        metrics = agent.update(replay, 0).metrics
        assert {value.device for value in metrics.values()} == {on_meta.DEVICE}
    parameters = [p for optimizer in agent.optimizers.values() for p in optimizer.parameters]
    assert len(parameters) > 10 and all(p.device == on_meta.DEVICE for p in parameters)


def test_what_leaves_the_device_is_noticed(monkeypatch):
    """The test above can fail: numbers of the host in an update, and numbers read from it."""
    device = on_meta.use(monkeypatch, "DMControl")
    agent, replay = make("method=baseline", device=device)
    actor_losses = agent.actor_losses
    monkeypatch.setattr(agent, "actor_losses", lambda obs, noise: actor_losses(obs + torch.ones(len(obs), 1, 1, 1), noise))
    with pytest.raises(RuntimeError, match="device"):
        agent.update(replay, 0)
    monkeypatch.setattr(agent, "actor_losses", lambda obs, noise: actor_losses(obs * (obs.amax() > 0).item(), noise))
    with pytest.raises(RuntimeError, match="meta"):
        agent.update(replay, 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_replay_in_ram_says_so_before_it_is_read_for_a_gpu(monkeypatch, method):
    """So that an update which cannot be recorded runs plainly: a copy under way would break CUDA's recording."""
    agent, replay = make(f"method={method}", device=on_meta.use(monkeypatch, "DMControl"))
    replay.store.frames = torch.zeros(replay.store.frames.shape, dtype=torch.uint8)

    def said(device, what):
        raise HostNeeded(what)

    monkeypatch.setattr(frames, "refuse_in_recording", said)
    with pytest.raises(HostNeeded, match="the replay is in RAM"):
        agent.update(replay, 0)


@pytest.mark.parametrize("decay", ["inverse_sqrt", "constant"])
@pytest.mark.parametrize("warmup", [0, 6])
def test_the_rate_on_the_device_is_the_hosts(warmup, decay):
    for step in range(20):
        got = warmup_factor_on_device(torch.tensor(float(step), dtype=torch.float64), warmup, decay)
        assert got.item() == pytest.approx(warmup_factor(step, warmup, decay), rel=1e-12)


@pytest.mark.cuda
@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_update_is_the_plain_one(method):
    """Twelve updates with new frames in between, recorded from the seventh on, against launching each kernel: fp32, the same draws.

    Losses, parameters and targets after each of them.
    """
    runs = []
    for compile in ("true", "false"):
        agent, replay = make(f"method={method}", f"compile={compile}", device=on_gpu.device())
        agent.generator.manual_seed(5)
        runs.append([])
        for number in range(12):
            runs[-1] += follow(agent, replay, 1)
            one_more(replay, 20 * number, number / 12, float(number))
        assert agent.recorder.active == (compile == "true") and len(agent.recorder.recorded) == (agent.period if compile == "true" else 0)
    plain.assert_agreement(*runs, loss=1e-2, parameter=2e-5)


@pytest.mark.cuda
def test_what_goes_through_the_host_is_left_unrecorded_on_a_gpu(capsys):
    agent, replay = make("augment.order=[crop,affine,intensity]", "compile=true", device=on_gpu.device())
    losses = [update["loss/critic"] for update, _ in follow(agent, replay, 10)]
    assert not agent.recorder.active and np.isfinite(losses).all()
    assert "compile: an update cannot be recorded (augmentation affine draws on the host)" in capsys.readouterr().out


@pytest.mark.cuda
def test_a_save_moves_between_cpu_and_gpu():
    """On a GPU it goes on with the same numbers; on the other kind of device with the same weights and a new random stream."""
    agent, replay = make("method=mlr", device=on_gpu.device())
    follow(agent, replay, 4)
    networks, state = copy.deepcopy(agent.networks()), copy.deepcopy(agent.state_dict())
    expected = follow(agent, replay, 4)
    for device in (on_gpu.device(), CPU):
        other, replay = make("method=mlr", device=device)
        other.load_networks(networks)
        other.load_state_dict(state)
        got = follow(other, replay, 4)
        if device.type == "cuda":
            assert [u["loss/critic"] for u, _ in got] == pytest.approx([u["loss/critic"] for u, _ in expected], rel=1e-2)
        back, replay = make("method=mlr", device=on_gpu.device())
        back.load_networks(other.networks())
        back.load_state_dict(other.state_dict())
        assert back.updates == 8 and np.isfinite([u["loss/critic"] for u, _ in follow(back, replay, 8)]).all()


@pytest.mark.cuda
def test_updates_are_recorded_again_after_a_save_is_loaded():
    """The gradients of the first recordings are still alive when the second ones begin."""
    agent, replay = make("method=mlr", "compile=true", device=on_gpu.device())
    follow(agent, replay, 10)
    networks, state = copy.deepcopy(agent.networks()), copy.deepcopy(agent.state_dict())
    before = follow(agent, replay, 10)
    agent.load_networks(networks)
    agent.load_state_dict(state)
    after = follow(agent, replay, 10)
    assert agent.recorder.active and len(agent.recorder.recorded) == 2
    plain.assert_agreement(after, before, loss=1e-2, parameter=2e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("method", METHODS)
def test_no_copy_and_no_wait_inside_an_update_on_a_gpu(method):
    agent, replay = make(f"method={method}", "compile=true", device=on_gpu.device(), dtype=torch.bfloat16)
    on_gpu.assert_recorded_without_copy_or_wait(agent, replay, 0)


@pytest.mark.cuda
def test_fast_is_plain_on_a_gpu(monkeypatch):
    device = on_gpu.device()
    agent, replay = make(*BATCHES, "compile=false", device=device)
    assert agent.critic_optimizer.on_device
    fast = follow(agent, replay)
    plain.assert_agreement(fast, plain_updates(monkeypatch, *BATCHES, "compile=false", device=device), loss=1e-2, parameter=2e-5)
