"""SODA and SGQN against the official code's numbers."""

import numpy as np
import pytest
import torch
from official import assert_close, tensor
from official_madi import (
    assert_gradients,
    assert_steps,
    attribution_step,
    critic_step,
    fill_colour,
    make_agent_of,
    overlaid,
    sgqn_of,
    soda_of,
    soda_step,
    target_values,
)

from DMControl.methods import sgqn

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]


@pytest.fixture
def g(golden):
    return {k: tensor(v) for k, v in golden("madi_family").items()}


def test_sodas_projections(g):
    agent = make_agent_of(g, "soda")
    soda = soda_of(agent)
    projected = soda.projector(overlaid(agent, g))
    assert_close(projected, g["soda/head_out"], 1e-4)
    assert_close(soda.predictor(projected), g["soda/predictor_out"], 1e-4)
    assert_close(soda.target(g["next_obs"]), g["soda/target_out"], 1e-4)


def test_sodas_step(g):
    agent = make_agent_of(g, "soda")
    soda = soda_of(agent)
    assert_close(soda_step(agent, g), g["soda/loss"], 1e-4)
    assert_gradients(agent, g, "soda")
    assert_steps(agent, g, "soda/after_step")
    assert_steps(agent, g, "soda/after_ema", owner="soda_target.")
    assert_close(soda.projector.head[1].running_mean, g["soda/bn_running_mean"], 1e-4)
    assert_close(soda.projector.head[1].running_var, g["soda/bn_running_var"], 1e-4)
    assert_close(soda.target.head[1].running_mean, g["soda/bn_target_running_mean"], 1e-4)


# --- SGQN


@pytest.fixture
def with_decoder(g):
    """The arrays, and the decoder's weights by their rule, under the labels of its layers."""
    (_, filters, side, _), (_, dim), actions = g["conv_features"].shape, g["encoder_critic_obs"].shape, g["action"].shape[1]
    out = g["obs"].shape[1]
    shapes = {
        "proj": (filters * side**2, dim + actions), "conv1": (128, filters, 3, 3), "conv2": (64, 128, 3, 3), "conv3": (out, 64, 3, 3)
    }  # fmt: skip
    *scales, bias = g["sgqn/decoder_fill_scale"].tolist()
    for number, ((label, shape), scale) in enumerate(zip(shapes.items(), scales, strict=True)):
        g[f"w/{label}.weight"] = fill(shape, 100 + 2 * number, scale)
        g[f"w/{label}.bias"] = fill(shape[:1], 101 + 2 * number, bias)
    return g


def fill(shape, seed, scale):
    """A hash of index and seed, in whole numbers modulo 2^32."""
    h = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(seed * 0x85EBCA77 & 0xFFFFFFFF)
    h ^= h >> 15
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> 12
    h *= np.uint32(0x297A2D39)
    h ^= h >> 15
    scale = round(scale, 6)  # stored in single precision, meant in double
    return tensor((scale * (h / 2.0**32 * 2 - 1)).astype(np.float32).reshape(shape))


def test_saliency(g):
    agent = make_agent_of(g, "sgqn")
    found = sgqn.saliency(agent.critic, g["obs"], g["action"])  # (B, S, H, W)
    corner = g["sgqn/saliency_corner"]
    largest = corner.abs().unflatten(1, (-1, 3)).amax(2)
    assert_close(found[..., : corner.shape[-2], : corner.shape[-1]], largest, 1e-3)
    kept = sgqn.salient(found, sgqn_of(agent).quantile)
    wanted = np.unpackbits(g["sgqn/mask_bits"].cpu().numpy())[: kept[:, ::3].numel()]
    assert torch.equal(kept[:, ::3].sum((2, 3)).int(), g["sgqn/mask_count"])
    assert torch.equal(kept[:, ::3].flatten(), tensor(wanted).float())
    assert torch.equal(kept, kept[:, ::3].repeat_interleave(3, 1))
    threshold = g["sgqn/quantile_value"][..., None, None]
    assert torch.equal(found >= threshold, kept[:, ::3].bool())


def test_critic_of_sgqn(g, monkeypatch):
    agent = make_agent_of(g, "sgqn")
    monkeypatch.setattr(torch, "rand", lambda *a, **k: g["fill_fraction"])
    colour = fill_colour(agent, g)
    assert_close(colour, g["sgqn/fill_value"], 1e-5)
    kept = sgqn.salient(sgqn.saliency(agent.critic, g["obs"], g["action"]), sgqn_of(agent).quantile)
    for image, side in ((g["obs"], ""), (torch.where(kept.bool(), g["obs"].float(), colour), "_masked")):
        for ours, name in zip(agent.critic(image, g["action"]), ("Q1", "Q2"), strict=True):
            assert_close(ours, g[f"sgqn/{name}{side}"], 1e-4)
    assert_close(target_values(agent, g), g["sgqn/target_Q"], 1e-4)
    assert_close(critic_step(agent, g), g["sgqn/critic_loss"], 1e-4)
    assert_gradients(agent, g, "sgqn")
    assert_steps(agent, g, "sgqn/after_step")


def test_attribution_decoder(with_decoder):
    g, agent = with_decoder, make_agent_of(with_decoder, "sgqn")
    decoder = sgqn_of(agent).decoder
    for layer, first in zip((decoder.fc, *decoder.convs), g["sgqn/decoder_first4"], strict=True):
        assert torch.equal(layer.weight.detach().flatten()[:4], first)
    logits, corner = decoder(agent.critic.encoder(overlaid(agent, g)), g["action"]), g["sgqn/aux_logits_corner"]
    assert_close(logits[..., : corner.shape[-2], : corner.shape[-1]], corner, 1e-4)
    assert_close(logits.mean((2, 3)), g["sgqn/aux_logits_mean"], 1e-4)
    assert_close(attribution_step(agent, g), g["sgqn/aux_loss"], 1e-4)
    assert_gradients(agent, g, "sgqn/aux")
    assert_steps(agent, g, "sgqn/aux/after_step")
