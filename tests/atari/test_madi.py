"""MaDi on Rainbow, and MLR behind a Masker."""

import copy

import numpy as np
import pytest
import torch

from Atari.agents.views import CleanAndStrong, Views
from Atari.core.machine import Precision
from Atari.core.method.frames import Frames
from Atari.core.method.masker import Masker
from Atari.core.method.strong_augmentation import StrongAugmentation
from Atari.env import Step
from Atari.memory import memory
from Atari.methods import madi, make_agent
from Atari.settings import read_config
from Atari.train import make_replay

FP32 = Precision(torch.device("cpu"), torch.float32)


def agent_and_replay(method, *settings):
    """As a run of preset debug builds them, with a game of noise in the replay."""
    config = read_config(["preset=debug", f"method={method}", *settings])
    agent = make_agent(config, 4, FP32)
    replay, rng, size = make_replay(config, agent), np.random.default_rng(0), config.env.size
    frames = rng.integers(0, 256, (81, size, size, 1), dtype=np.uint8)
    replay.start(frames[0])
    for i in range(80):
        replay.add(int(rng.integers(4)), Step(frames[i + 1], float(rng.integers(-1, 2)), 0.0, False, False, False))
    return agent, replay


def parameters(agent):
    found = [p.detach().flatten() for name, m in agent.modules.items() if name != "pixels" for p in m.parameters()]
    return torch.cat([*found, agent.generator.get_state().float()])


def masker_of(agent):
    return torch.cat([p.detach().flatten() for p in agent.pixels.parameters()])


def test_a_frame_is_masked_alike_wherever_it_stands_in_a_stack():
    torch.manual_seed(0)
    masker = Masker(3, 8, "soft", 0.5, FP32, colours=1)
    for p in masker.parameters():
        torch.nn.init.normal_(p, std=0.3)
    image, calls = torch.randint(0, 256, (3, 4, 12, 12), dtype=torch.uint8), []
    masker.convs[0].register_forward_hook(lambda m, i, o: calls.append(tuple(i[0].shape)))
    with torch.no_grad():
        seen = masker(image)
        assert calls == [(3 * 4, 1, 12, 12)]
        torch.testing.assert_close(masker(image.roll(1, 1)), seen.roll(1, 1))
        changed = image.clone()
        changed[:, 1] = 255 - changed[:, 1]
        assert torch.equal(masker(changed)[:, [0, 2, 3]], seen[:, [0, 2, 3]]) and not torch.equal(masker(changed)[:, 1], seen[:, 1])
    assert 0 < masker.pictures(image)["mask"].float().std() and masker.pictures(image)["masked"].shape == (3, 1, 12, 12)


@pytest.mark.parametrize("method", ["madi", "mlr_madi"])
def test_the_masker_stands_in_front_of_everything(method):
    """With masks of zero the agent is blind: acting, target, loss and objective are the same whatever is there."""
    agent, replay = agent_and_replay(method, "strong_augmentation.kind=none", "augment.order=[]")
    batch = replay.sample(4, 0.5)
    last = agent.pixels.convs[-1].bias

    def seen(negative):
        replay.store.frames[:-1] = frames if not negative else 255 - frames
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            values = []
            agent.network.register_forward_hook(lambda m, i, o: values.append(o))
            agent.act(Frames(replay.store.frames, batch.obs.index), agent.begin(4), explore=False)
            found = [values[0], agent.make_target(batch), agent.rl_loss(batch, agent.make_target(batch), agent.encode(batch))[0]]
            if agent.objective is not None:
                (part,) = agent.objective.parts(batch.sequence, generator)
                found += [agent.objective.encode(part)[0], agent.objective.encode(part)[2]]
        return found

    frames = replay.store.frames[:-1].clone()
    with torch.no_grad():
        last.fill_(-1e4)
    agent.network.head.resample = lambda generator: None
    assert all(torch.equal(a, b) for a, b in zip(seen(False), seen(True), strict=True))
    with torch.no_grad():
        last.zero_()
    assert not any(torch.equal(a, b) for a, b in zip(seen(False), seen(True), strict=True))


def test_the_masker_learns_from_the_distributional_loss_alone():
    agent, replay = agent_and_replay("mlr_madi")
    batch, masker = replay.sample(4, 0.5), list(agent.pixels.parameters())
    loss, _, metrics = agent.rl_loss(batch, agent.make_target(batch), agent.encode(batch))
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in masker) and 0 < metrics["agent/mask"] < 1
    assert not agent.make_target(batch).requires_grad
    for p in masker:
        p.grad = None
    agent.objective_gradient(batch)
    assert all(p.grad is None for p in masker) and next(agent.network.trunk.parameters()).grad.abs().sum() > 0

    def after_an_update(weight):
        one, its_replay = agent_and_replay("mlr_madi", f"mlr.weight={weight}")
        before = masker_of(one)
        one.update(its_replay, 100)
        assert not torch.equal(before, masker_of(one))
        return masker_of(one)

    assert torch.equal(after_an_update(0), after_an_update(1000))


def test_the_masker_has_its_own_optimiser_without_a_clip_and_no_copy():
    agent, replay = agent_and_replay("madi", "rainbow.clip=1e-8")
    own = {id(p) for p in agent.pixels.parameters()}
    clipped = [p for group in agent.clipped.values() for p in group]
    others = [*agent.network.parameters(), *agent.target.parameters(), *agent.optimizer.parameters, *clipped]
    assert not own & {id(p) for p in others} and {id(p) for p in agent.pixels.optimizer.parameters} == own
    assert {name for name in agent.networks() if name != "network"} == {"target", "pixels"}
    metrics = agent.update(replay, 100).metrics
    assert set(agent.columns) == set(metrics) and metrics["grad/pixels"] > 1e-6  # after the step: not clipped


def test_a_strong_view_is_half_of_the_loss():
    """The clean half as without it, and the priorities too; the other half is the loss of the blended images."""
    agent, replay = agent_and_replay("madi", "augment.order=[]", "masker.enabled=false", "strong_augmentation.alpha=1.0")
    batch = replay.sample(4, 0.5)
    agent.network.head.resample = lambda generator: None
    target = torch.rand(4, agent.settings.atoms, generator=torch.Generator().manual_seed(0)).softmax(1)

    def loss(views):
        agent.views = views
        return agent.rl_loss(batch, target, agent.encode(batch))

    assert isinstance(agent.views, CleanAndStrong) and agent.views.strong.bank.shape == (16, 128, 128, 1)
    own = agent.views
    bank = torch.full((3, 8, 8, 1), 100, dtype=torch.uint8)
    both, priority, metrics = loss(CleanAndStrong(StrongAugmentation("overlay", 1.0, bank), 0.25, 2.0))
    plain, plain_priority, plain_metrics = loss(Views())
    only = torch.full_like(batch.obs.whole().float(), 100.0)  # alpha = 1 shows nothing but the overlay
    blended, _ = agent.value.loss(agent.network(only, noisy=True), batch.action, target)
    torch.testing.assert_close(both, 0.25 * plain + 2 * blended)
    torch.testing.assert_close(priority, plain_priority)
    torch.testing.assert_close(metrics["agent/q"], plain_metrics["agent/q"])
    assert (own.alpha, own.beta) == (0.5, 0.5) and (both - plain).abs().min() > 1e-3
    grey = madi.overlay_images("", 16)
    assert grey.std() > 20 and len(np.unique(grey.reshape(16, -1), axis=0)) == 16


OFF = ("masker.enabled=false", "strong_augmentation.kind=none")


@pytest.mark.parametrize(("method", "base"), [("madi", "baseline"), ("mlr_madi", "mlr")])
def test_switched_off_it_is_its_base_bit_for_bit(method, base):
    agents = [agent_and_replay(method, *OFF), agent_and_replay(base), agent_and_replay(method)]
    for agent, replay in agents:
        for step in (61, 62, 63):
            agent.update(replay, step)
    off, plain, on = (parameters(agent) for agent, _ in agents)
    assert torch.equal(off, plain)
    assert not torch.equal(on, plain)


def test_mixed_masks_are_hard_in_other_distractions_only():
    agent, replay = agent_and_replay("madi", "masker.type=mixed", "masker.threshold=0.4")
    obs = replay.sample(2, 0.5).obs
    levels = lambda elsewhere: set(agent.seen(obs, elsewhere)["mask"].unique().tolist())  # noqa: E731
    assert levels(True) <= {0, 255} and not levels(False) <= {0, 255}
    inputs = []
    agent.network.register_forward_pre_hook(lambda m, i: inputs.append(i[0]))
    for elsewhere in (False, True):
        agent.act(obs, agent.begin(2), explore=False, elsewhere=elsewhere)
    frames = obs.whole().float()
    masks = agent.pixels.masks(frames.flatten(0, 1)[:, None]).view_as(frames)
    torch.testing.assert_close(inputs[0], frames * masks)
    assert torch.equal(inputs[1], torch.where(masks > 0.4, frames, 0))


def test_saved_and_loaded():
    """Weights and moments of the Masker too. Without one the save is what it was."""
    agent, replay = agent_and_replay("madi")
    agent.update(replay, 61)
    networks, state = copy.deepcopy(agent.networks()), copy.deepcopy(agent.state_dict())
    other, _ = agent_and_replay("madi", "seed=2")
    other.load_networks(networks)
    other.load_state_dict(state)
    saved = replay.state_dict()
    for one in (agent, other):
        replay.leaf.view(-1)[: len(saved["leaf"])] = saved["leaf"]
        replay.row_sum.copy_(replay.leaf.sum(1))
        replay.generator = one.generator
        one.update(replay, 62)
    assert torch.equal(masker_of(agent), masker_of(other)) and torch.equal(parameters(agent), parameters(other))
    plain, _ = agent_and_replay("baseline")
    assert set(plain.networks()) == {"network", "target"}


def test_the_overlay_images_are_counted():
    config = read_config(["preset=debug", "method=madi", "strong_augmentation.images=100000"])
    assert memory(config, 4, FP32)["overlay images"] >= 100_000 * 128 * 128 * 2
    none = read_config(["preset=debug", "method=madi", "strong_augmentation.kind=none"])
    assert "overlay images" not in memory(none, 4, FP32)
