"""SGQN: saliency, consistency and the attribution decoder."""

import copy

import pytest
import torch
from small_agents import fill, make, part_of

from DMControl.agents.critic_loss import squared
from DMControl.core.method.augment import Gather, View
from DMControl.core.method.frames import Frames
from DMControl.methods import sgqn
from DMControl.replay import Batch


def test_guided_gradients_pass_only_what_is_positive():
    x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
    y = sgqn.GuidedReLU.apply(x)
    (g,) = torch.autograd.grad(y, x, torch.tensor([1.0, -1.0, 1.0]))
    assert y.tolist() == [0, 2, 3] and g.tolist() == [0, 0, 1]


def test_salient_pixels_are_those_at_or_above_the_quantile_of_their_frame():
    values = torch.rand(3, 2, 10, 10, generator=torch.Generator().manual_seed(0))
    for quantile in (0.0, 0.5, 0.9, 0.95, 0.98):
        kept = sgqn.salient(values, quantile)
        threshold = torch.quantile(values.flatten(2), quantile, dim=2)[..., None, None]
        assert torch.equal(kept[:, ::3].bool(), values >= threshold)
        assert kept.shape == (3, 6, 10, 10) and torch.equal(kept[:, 0], kept[:, 2])


def test_saliency_is_guided_backpropagation_of_the_networks_q1():
    """Against torch's own ReLUs, each with a hook that cuts what is negative; and not the plain gradient."""
    agent, config = make("sgqn", "encoder.init=kaiming")
    part, critic = part_of(agent, config, 2), agent.critic
    relus = []

    def relu():
        relus.append(torch.nn.ReLU())
        return relus[-1]

    convs = [layer for conv in critic.encoder.trunk.convs for layer in (conv, relu())]
    q1 = torch.nn.Sequential(*(relu() if isinstance(layer, torch.nn.ReLU) else layer for layer in critic.q1))

    def gradient():
        image = part.obs.float().requires_grad_()
        features = torch.nn.Sequential(*convs)(image / 255)
        value = q1(torch.cat([critic.encoder.head(features), part.action], 1))
        torch.testing.assert_close(value, critic(part.obs, part.action)[0], rtol=1e-4, atol=1e-5)  # the very network
        (out,) = torch.autograd.grad(value.sum(), image)
        return out.abs().view(2, 3, 3, 36, 36).amax(2)

    plain = gradient()
    for module in relus:
        module.register_full_backward_hook(lambda m, inner, outer: (inner[0].clamp_min(0),))
    found = sgqn.saliency(critic, part.obs, part.action)
    torch.testing.assert_close(found, gradient(), rtol=1e-4, atol=1e-9)
    assert not torch.allclose(found, plain, rtol=0.1) and not any(p.grad is not None for p in critic.parameters())


def test_sgqn_adds_the_consistency_with_the_masked_observation():
    agent, config = make("sgqn", "encoder.init=kaiming")  # delta-orthogonal strides leave most pixels without a gradient at first
    part = part_of(agent, config)
    colour = torch.tensor(77.0)
    loss, _ = agent.critic_loss.loss(agent.critic, part, colour)
    kept = sgqn.salient(sgqn.saliency(agent.critic, part.obs, part.action), config.sgqn.quantile)
    masked = torch.where(kept.bool(), part.obs.float(), colour)
    one, two = agent.critic(part.obs, part.action), agent.critic(masked, part.action)
    torch.testing.assert_close(loss, squared(*one, part.target) + 0.5 * squared(one[0] - two[0], one[1] - two[1], torch.zeros(6, 1)))
    assert kept.mean() == pytest.approx(1 - config.sgqn.quantile, abs=0.01)


def test_sgqns_decoder_learns_every_second_update_with_the_encoder():
    agent, config = make("sgqn")
    replay, decoder = fill(agent, config), agent.objective.decoder
    assert ["loss/sgqn" in agent.update(replay, 0).metrics for _ in range(4)] == [True, False, True, False]
    modules = (agent.critic.encoder, decoder, agent.critic.q1)
    before = [copy.deepcopy(m.state_dict()) for m in modules]
    agent.update_objective(replay.sample(8).as_sequence(), agent.augment.draw(8, 9, agent.generator))
    changed = [any(not torch.equal(v, old[k]) for k, v in m.state_dict().items()) for m, old in zip(modules, before, strict=True)]
    assert changed == [True, True, False]
    assert decoder(torch.zeros(2, config.encoder.dim), torch.zeros(2, 2)).shape == (2, 9, 36, 36)


def test_sgqn_decays_the_critics_weights_and_no_others():
    agent, _ = make("sgqn")
    decay = {n: o.inner.param_groups[0]["weight_decay"] for n, o in agent.optimizers.items()}
    assert decay == {"critic": 1e-5, "actor": 0, "alpha": 0, "objective0": 0}


def test_sgqns_decoder_begins_as_pytorch_draws_it():
    """Uniform up to 1 / sqrt(inputs of a unit), biases too; all other layers are orthogonal with biases of 0."""
    agent, _ = make("sgqn")
    decoder = agent.objective.decoder
    for layer in (decoder.fc, *decoder.convs):
        bound = layer.weight[0].numel() ** -0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound and (layer.weight != 0).float().mean() > 0.99
        assert (layer.bias != 0).any() and layer.bias.abs().max() <= bound
    assert (agent.critic.encoder.head.fc.bias == 0).all()


def test_the_fill_lies_within_what_the_shifted_batch_shows(monkeypatch):
    """A bright column at the left edge: where the shift pushes it out of every view, no fill is that bright."""
    agent, _ = make("sgqn")
    side, obs = agent.crop, torch.full((4, 9, agent.crop, agent.crop), 100, dtype=torch.uint8)
    obs[..., 0] = 200
    batch = Batch(Frames.of_images(obs), torch.zeros(4, 2), torch.zeros(4, 1), Frames.of_images(obs), torch.ones(4, 1))
    rows = torch.arange(side).expand(4, side)
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.ones(()))  # the brightest fill
    for shift, brightest in ((0, 200), (3, 100)):
        view = View((Gather(rows, (rows + shift).clamp(max=side - 1), None),))
        assert agent.critic_loss.draw(batch, view, agent.generator) == brightest
