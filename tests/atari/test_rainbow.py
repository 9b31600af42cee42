"""The agent: what an update does, in which order, and that it comes back from a save."""

import copy

import numpy as np
import pytest
import torch

from Atari.agents.networks import NoisyLinear
from Atari.core.method.augment import Gather, View
from Atari.core.method.encoder import renormalise
from Atari.methods.mlr import mean_grey

WINDOW = dict(window=4, patch=8, block=2)


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def test_published_sizes(make_agent, attach_mlr):
    agent = make_agent(n_actions=18)
    assert agent.network.trunk.features == 3136
    assert [p.shape for p in agent.network.trunk.parameters() if p.ndim == 4] == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    count = sum(p.numel() for p in agent.target.parameters())
    assert 3.2e6 < count < 4.2e6  # convolutions and head, no decoder
    std = agent.network.head.value_hidden.sigma_weight
    assert std.unique().item() == pytest.approx(0.1 / 3136**0.5)
    narrow = attach_mlr(agent, width=64)
    assert sum(p.numel() for p in narrow.decoder.parameters()) < 1e6
    assert narrow.masks.hidden_of(49) == 25


def test_noisy_layer():
    """The product form equals the matrix of noise written out; the noise is sign(x) sqrt|x| of a normal."""
    layer = NoisyLinear(5, 3, 0.5)
    generator = torch.Generator().manual_seed(0)
    layer.resample(generator)
    x = torch.randn(4, 5)
    weight = layer.mean.weight + layer.sigma_weight * torch.outer(layer.noise_out, layer.noise_in)
    bias = layer.mean.bias + layer.sigma_bias * layer.noise_out
    torch.testing.assert_close(layer(x, True), x @ weight.t() + bias)
    torch.testing.assert_close(layer(x, False), layer.mean(x))
    wide = NoisyLinear(100_000, 1, 0.5)
    wide.resample(generator)
    assert wide.noise_in.square().mean().item() == pytest.approx((2 / np.pi) ** 0.5, rel=0.02)  # E|x|
    assert layer.sigma_weight.unique().item() == pytest.approx(0.5 / 5**0.5)
    assert layer.sigma_bias.unique().item() == pytest.approx(0.5 / 3**0.5)


def test_head_scales_the_gradient_of_its_input_only(make_agent, tiny):
    agent = make_agent(**tiny)
    head = agent.network.head
    latent = torch.rand(3, agent.network.trunk.features, requires_grad=True)
    plain = latent.detach().clone().requires_grad_()
    value = head.value(torch.relu(head.value_hidden(plain, True)), True)[:, None]
    advantage = head.advantage(torch.relu(head.advantage_hidden(plain, True)), True).view(3, 4, 7)
    wanted = value + advantage - advantage.mean(1, keepdim=True)
    got = head(latent, True)
    torch.testing.assert_close(got, wanted)
    probe = torch.randn_like(got)
    (got * probe).sum().backward()
    (wanted * probe).sum().backward()
    torch.testing.assert_close(latent.grad, plain.grad * 0.5**0.5)


def test_one_update_is_one_adam_over_the_weighted_sum(setup):
    """The gradient is that of mean(w * (rl + lambda * mlr)), written out here in one piece."""
    agent, replay = setup(weight=3.0, clip=1e9)
    twin, twin_replay = setup(weight=3.0, clip=1e9)
    agent.update(replay, 5000)

    batch = twin_replay.sample(8, twin.beta(5000))
    rl, _, _ = twin.rl_loss(batch, twin.make_target(batch), twin.encode(batch))
    (part,) = twin.objective.parts(batch.sequence, twin.generator)
    mlr, _ = twin.objective.loss(part)
    twin.optimizer.zero_grad()
    (batch.weight * (rl + 3.0 * mlr)).mean().backward()
    assert batch.weight.min() < 0.9
    for (name, ours), theirs in zip(agent.network.named_parameters(), twin.network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)
    for ours, theirs in zip(agent.objective.trained(), twin.objective.trained(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert len(agent.optimizer.parameters) == len({id(p) for p in agent.optimizer.parameters})
    trained = {id(p) for p in [*agent.network.parameters(), *agent.objective.trained()]}
    assert {id(p) for p in agent.optimizer.parameters} == trained


def test_a_rate_of_the_objectives_own(setup):
    """Moves what the objective alone trains at its own rate, and the network as before; it is saved and loaded."""
    (plain, replay), (apart, again) = setup(adam_eps=1e-12), setup(adam_eps=1e-12, objective_lr=1e-2)
    before = [p.clone() for p in apart.objective.decoder.parameters()]
    for agent, store in ((plain, replay), (apart, again)):
        agent.update(store, 1)
    for a, b in zip(plain.network.parameters(), apart.network.parameters(), strict=True):
        assert torch.equal(a, b)
    for p, old in zip(apart.objective.decoder.parameters(), before, strict=True):
        if p.grad.abs().max() > 0:
            assert (p - old).abs().max().item() == pytest.approx(1e-2, rel=1e-3)  # Adam's first step
    resumed = setup(adam_eps=1e-12, objective_lr=1e-2)[0]
    resumed.load_networks(apart.networks())
    resumed.load_state_dict(copy.deepcopy(apart.state_dict()))
    for agent, store in ((apart, again), (resumed, copy.deepcopy(again))):
        agent.update(store, 2)
    for a, b in zip(apart.objective.parameters(), resumed.objective.parameters(), strict=True):
        assert torch.equal(a, b)


def test_importance_weights_reach_both_losses(setup):
    agent, replay = setup(clip=1e9)
    batch = replay.sample(8, 0.5)
    silent = copy.copy(batch)
    object.__setattr__(silent, "weight", torch.zeros(8))
    agent.optimizer.zero_grad()
    agent.objective_gradient(silent)
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in agent.objective.decoder.parameters())


def test_parts_add_up(setup):
    whole, replay = setup(clip=1e9)
    parts, other = setup(clip=1e9, chunk=3)
    a, b = whole.update(replay, 0).metrics, parts.update(other, 0).metrics
    for ours, theirs in zip(whole.optimizer.parameters, parts.optimizer.parameters, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(a["loss/mlr"], b["loss/mlr"])


def test_targets_lag_by_one_update(setup):
    """RL's target is the network after the update; MLR's is the one before it."""
    agent, replay = setup()
    objective, network = agent.objective, agent.network
    before = flat(network.trunk), flat(network.head.value_hidden.mean)
    agent.update(replay, 0)
    assert torch.equal(flat(objective.target_encoder.trunk), before[0])
    assert torch.equal(flat(objective.target_projection.value), before[1])
    assert not torch.equal(flat(network.trunk), before[0])
    assert torch.equal(flat(agent.target), flat(network))
    before = flat(network.trunk), flat(network.head.advantage_hidden.mean)
    agent.update(replay, 0)
    assert torch.equal(flat(objective.target_encoder.trunk), before[0])
    assert torch.equal(flat(objective.target_projection.advantage), before[1])
    assert all(torch.equal(a, b) for a, b in zip(agent.target.buffers(), network.buffers(), strict=True))


def test_targets_without_lag(setup):
    agent, replay = setup(lagged_targets=False)
    agent.update(replay, 0)
    assert torch.equal(flat(agent.objective.target_encoder.trunk), flat(agent.network.trunk))


def test_target_keeps_the_noise_of_the_update_before(setup):
    agent, replay = setup(mlr=False)
    agent.update(replay, 0)
    old = agent.network.head.value.noise_out.clone()
    seen = []
    agent.copy_to_target = lambda: seen.append((agent.network.head.value.noise_out.clone(), agent.target.head.value.noise_out.clone()))
    agent.update(replay, 0)
    assert torch.equal(seen[0][1], old) and not torch.equal(seen[0][0], old)


def test_target_distribution(setup):
    """The online net chooses the action, the target net gives its distribution; n steps of discount, none after the end."""
    agent, replay = setup(mlr=False, names=())  # nothing drawn: both nets see the same picture
    with torch.no_grad():
        for p in agent.target.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    batch = replay.sample(64, 0.5)
    assert 0 < batch.done_n.sum() < 64
    got = agent.make_target(batch)
    with torch.no_grad():
        online, target = (net(batch.next_obs.whole(), True).exp() for net in (agent.network, agent.target))
    best = (online * agent.value.support).sum(-1).argmax(1)
    assert (best != (target * agent.value.support).sum(-1).argmax(1)).any()
    z = agent.value.support.tolist()
    gap = z[1] - z[0]
    for i in range(64):  # the slow and obvious projection
        wanted = [0.0] * len(z)
        for j, atom in enumerate(z):
            moved = batch.return_n[i].item() + (0.0 if batch.done_n[i] else 0.99**3 * atom)
            place = (min(max(moved, z[0]), z[-1]) - z[0]) / gap
            low = min(int(place), len(z) - 2)
            wanted[low] += (low + 1 - place) * target[i, best[i], j].item()
            wanted[low + 1] += (place - low) * target[i, best[i], j].item()
        assert got[i].tolist() == pytest.approx(wanted, abs=1e-4)


def test_clip_groups(setup):
    """Convolutions and head together, decoder apart, action tokens and prediction in neither."""
    agent, replay = setup(clip=1e-3, weight=100.0)
    agent.update(replay, 0)
    objective = agent.objective

    def norm(parameters):
        return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm().item()

    assert norm(agent.network.parameters()) == pytest.approx(1e-3, rel=1e-3)
    assert norm(objective.decoder.parameters()) == pytest.approx(1e-3, rel=1e-3)
    assert norm(objective.embed_action.parameters()) > 2e-3 and norm(objective.prediction.parameters()) > 2e-3


def test_probabilities_are_normalised_in_fp32(make_agent, tiny):
    """Also where the layers compute in bf16, in training and when judged."""
    network = make_agent(**tiny, dtype=torch.bfloat16).network
    image = torch.randint(256, (5, 2, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for noisy, mode in ((True, torch.enable_grad), (False, torch.no_grad)):
        with mode():
            log_p = network(image, noisy)
        assert log_p.dtype == torch.float32 and (log_p.exp().sum(-1) - 1).abs().max() < 1e-5


def test_masked_input_quirk(setup, attach_mlr):
    agent, _ = setup(mlr=False)
    image = torch.randint(256, (2, 2, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for conv in agent.network.trunk.convs:
            conv.bias.uniform_(-0.3, 0.3)  # without biases the scale would cancel

    def plain(scale):
        x = image.float() * scale
        for conv in agent.network.trunk.convs:
            x = conv(x).relu()
        return renormalise(x)

    assert (plain(1.0) - plain(1 / 255)).abs().max() > 0.01
    for quirk, scale in ((True, 1.0), (False, 1 / 255)):
        objective = attach_mlr(agent, **WINDOW, masked_input_0_255=quirk)
        torch.testing.assert_close(objective.encoder(image), plain(scale), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(agent.network.encoder(image), plain(1 / 255), rtol=1e-4, atol=1e-5)


def test_objective_reads_the_agent_it_was_built_around(setup):
    """The projection is the head's own first layers: MLR moves their means, and never their noise."""
    agent, replay = setup()
    batch = replay.sample(8, 0.5)
    agent.optimizer.zero_grad()
    agent.objective_gradient(batch)
    head = agent.network.head
    assert head.value_hidden.mean.weight.grad.norm() > 0 and head.advantage_hidden.mean.weight.grad.norm() > 0
    assert agent.network.trunk.convs[0].weight.grad.norm() > 0
    assert head.value_hidden.sigma_weight.grad is None and head.value.mean.weight.grad is None


def test_what_each_loss_does_to_the_convolutions_is_logged(setup):
    agent, replay = setup()
    convolutions = list(agent.network.trunk.parameters())

    def norm() -> float:
        return torch.cat([p.grad.flatten() for p in convolutions]).norm().item()

    streams = [(g, g.get_state()) for g in (agent.generator, replay.generator)]
    batch = replay.sample(agent.settings.batch_size, agent.exponent.fill_(agent.beta(0)))
    agent.optimizer.zero_grad()
    (batch.weight * agent.rl_loss(batch, agent.make_target(batch), agent.encode(batch))[0]).mean().backward()
    alone = [norm()]
    agent.optimizer.zero_grad()
    agent.objective_gradient(batch)
    alone.append(norm())
    for generator, state in streams:
        generator.set_state(state)
    metrics = agent.update(replay, 0).metrics
    assert [metrics["grad/encoder"].item(), metrics["grad/objective"].item()] == pytest.approx(alone, rel=1e-3)
    assert min(alone) > 0 and "grad/objective" not in setup(mlr=False)[0].update(replay, 0).metrics


def test_update_sets_priorities(setup):
    agent, replay = setup(mlr=False)
    before = replay.leaf.clone()
    batch, twin = [], replay.sample

    def sample(n, beta):
        batch.append(twin(n, beta))
        return batch[0]

    replay.sample = sample
    priority = []
    loss = agent.rl_loss
    agent.rl_loss = lambda *given: (out := loss(*given), priority.append(out[1]))[0]
    agent.update(replay, 0)
    slot = batch[0].slot
    assert (replay.leaf.flatten()[slot] != before.flatten()[slot]).all()
    first = {int(s): p for s, p in reversed(list(zip(slot, priority[0], strict=True)))}
    for s, p in first.items():
        assert replay.leaf.flatten()[s].item() == pytest.approx(p.item() ** 0.5, rel=1e-5)


def test_three_views_of_their_own(setup):
    """obs, next_obs for the target and next_obs for the online net are augmented apart; targets are augmented too."""
    agent, replay = setup(mlr=False)
    views = []
    draw = agent.augment.draw
    agent.augment.draw = lambda *args: views.append(draw(*args)) or views[-1]
    agent.update(replay, 0)
    assert len(views) == 3
    rows = [view.stages[0].rows for view in views]
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[1], rows[2])


@pytest.mark.parametrize("chunk", [None, 3])
def test_hidden_pixels_are_black_or_the_mean_grey_of_the_updates_frames(setup, chunk):
    """One grey for all windows of an update, whatever their chunk; the frames here have a mean near 127."""
    for fill in (None, mean_grey):
        agent, replay = setup(fill=fill, chunk=chunk)
        sequence = replay.sample(8, 1.0).sequence
        newest = sequence.obs.store[sequence.obs.index[:, -1]].float()
        expected = 0 if fill is None else round(newest[:, :, ::4].mean().item())
        for part in agent.objective.parts(sequence, torch.Generator().manual_seed(1)):
            side = agent.augment.size
            rows = torch.arange(side).expand(len(part.hidden), side)
            still = View((Gather(rows, rows, None),))
            masked = agent.augment.view(part.sequence.obs, still, part.hidden, part.fill)
            covered = part.hidden[:, None].expand_as(masked)
            assert (masked[covered] == expected).all() and torch.equal(masked[~covered], part.sequence.obs.whole().float()[~covered])
        pictures = agent.objective.pictures(sequence, torch.Generator().manual_seed(1))
        own = 0 if fill is None else int(mean_grey(sequence[0:1].obs))
        assert (
            set(pictures["masked"][pictures["masked"] != pictures["frames"]].tolist()) <= {own} and 120 < expected + 127 * (not fill) < 135
        )
