"""The MaDi family against the official code's numbers: networks, views, SAC, SVEA, Masker and MaDi."""

import numpy as np
import pytest
import torch
from official import assert_close, fp32, norm, tensor
from official_madi import (
    actor_step,
    assert_gradients,
    assert_steps,
    critic_step,
    judge,
    labelled,
    make_agent_of,
    masker_of,
    overlaid,
    see,
    target_values,
    whole_update,
)

from DMControl.core.method.frames import Frames
from DMControl.core.method.strong_augmentation import StrongAugmentation
from DMControl.methods import make_agent
from DMControl.settings import read_config

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]
CRITIC, ACTOR = ("convs", "critic.", "masker"), ("actor.", "log_alpha")


@pytest.fixture
def g(golden):
    return {k: tensor(v) for k, v in golden("madi_family").items()}


def unequal(g):
    alpha, beta = g["svea_weights_unequal"].tolist()
    return f"svea.alpha={alpha}", f"svea.beta={beta}"


def test_encoders(g):
    agent = make_agent_of(g, "sac")
    trunk = agent.critic.encoder.trunk
    assert_close(trunk(g["obs"]), g["conv_features"], 1e-4)
    assert_close(agent.critic.encoder(g["obs"]), g["encoder_critic_obs"], 1e-4)
    assert_close(agent.actor.head(trunk(g["obs"])), g["encoder_actor_obs"], 1e-4)
    assert_close(agent.target.encoder(g["next_obs"]), g["encoder_target_next_obs"], 1e-4)


def test_overlay(g):
    view, wanted = overlaid(make_agent_of(g, "svea"), g), g["overlay_view_corner"]
    assert_close(view[..., : wanted.shape[-2], : wanted.shape[-1]], wanted, 1e-4)


def test_random_convolution(g):
    view = StrongAugmentation("conv", 1.0).view(g["obs"], g["conv_kernels"])
    first, last = g["conv_view_top_left"], g["conv_view_bottom_right"]
    assert_close(view[..., : first.shape[-2], : first.shape[-1]], first, 1e-4)
    assert_close(view[..., -last.shape[-2] :, -last.shape[-1] :], last, 1e-4)
    assert_close(view.mean((2, 3)), g["conv_view_mean"], 1e-4)


def test_rads_crops(g, monkeypatch):
    n, channels, size, _ = g["crop/frames"].shape
    crop = g["crop/out"].shape[-1]
    agent = make_agent(read_config(["method=rad", "preset=madi", f"image.size={size}", f"image.crop={crop}"]), 1, fp32())
    drawn, bounds = iter((g["crop/w1"], g["crop/h1"])), []  # rows, then columns
    monkeypatch.setattr(torch, "randint", lambda low, high, *a, **k: bounds.append((low, high)) or next(drawn).long()[:, None])
    view = agent.augment.draw(n, channels, agent.generator)
    frames = Frames.of_images(g["crop/frames"])
    assert bounds == [(0, size - crop)] * 2  # the far edge is never drawn
    assert torch.equal(agent.augment.view(frames, view), g["crop/out"])
    assert torch.equal(frames.centre_crop(crop), g["crop/centre"])


# --- SAC


def test_critic_of_sac(g):
    agent = make_agent_of(g, "sac")
    assert_close(target_values(agent, g), g["sac/target_Q"], 1e-4)
    for ours, name in zip(agent.critic(g["obs"], g["action"]), ("Q1", "Q2"), strict=True):
        assert_close(ours, g[f"sac/{name}"], 1e-4)
    assert_close(critic_step(agent, g), g["sac/critic_loss"], 1e-4)
    assert_gradients(agent, g, "sac", CRITIC)
    assert_steps(agent, g, "sac/after_step", CRITIC)


def assert_policy(agent, g, case):
    """Policy and Q functions at its actions, then a step of actor and temperature, which moves nothing else."""
    features = agent.critic.encoder.trunk(see(agent, g["obs"]))
    mean, action, log_pi, log_std = agent.actor(features, g["noise_actor"])
    q1, q2 = agent.critic.values(agent.critic.encoder.head(features), action)
    found = {"mu": mean, "pi": action, "log_pi": log_pi, "log_std": log_std, "Q1": q1, "Q2": q2}
    for name, ours in found.items():
        assert_close(ours, g[f"{case}/actor_{name}"], 1e-4)
    assert_close(judge(agent, g), g[f"{case}/actor_mu"], 1e-4)
    before = {k: p.detach().clone() for k, p in labelled(agent).items()}
    for ours, name in zip(actor_step(agent, g), ("actor_loss", "alpha_loss"), strict=True):
        assert_close(ours, g[f"{case}/{name}"], 1e-4)
    assert_gradients(agent, g, case, ACTOR)
    assert_steps(agent, g, f"{case}/after_step", ACTOR)
    assert all(torch.equal(p, before[k]) for k, p in labelled(agent).items() if not k.startswith(ACTOR))


def test_actor_of_sac(g):
    assert_policy(make_agent_of(g, "sac"), g, "sac")


def test_targets_of_sac(g):
    agent = make_agent_of(g, "sac")
    agent.momentum.step()
    assert_steps(agent, g, "sac/after_ema")


# --- SVEA


@pytest.mark.parametrize("method", ["svea", "madi"])
def test_both_halves_weigh_the_same(g, method):
    agent = make_agent_of(g, method)
    assert_close(target_values(agent, g), g[f"{method}/target_Q"], 1e-4)
    both = torch.cat([g["obs"].float(), overlaid(agent, g)])
    for ours, name in zip(agent.critic(see(agent, both), g["action"].repeat(2, 1)), ("Q1", "Q2"), strict=True):
        assert_close(ours, g[f"{method}/{name}"], 1e-4)
    assert_close(critic_step(agent, g), g[f"{method}/critic_loss"], 1e-4)
    assert_gradients(agent, g, method, CRITIC)


@pytest.mark.parametrize("method", ["svea", "madi"])
def test_halves_of_unequal_weight(g, method):
    agent, case = make_agent_of(g, method, *unequal(g)), f"{method}_unequal"
    assert_close(target_values(agent, g), g[f"{case}/target_Q"], 1e-4)
    for image, half in ((g["obs"], ""), (overlaid(agent, g), "_aug")):
        for ours, name in zip(agent.critic(see(agent, image), g["action"]), ("Q1", "Q2"), strict=True):
            assert_close(ours, g[f"{case}/{name}{half}"], 1e-4)
    assert_close(critic_step(agent, g), g[f"{case}/critic_loss"], 1e-4)
    assert_gradients(agent, g, case, CRITIC)


# --- Masker and MaDi


def frames_of(g):
    """RGB frames one by one, (B * S, 3, H, W)."""
    return g["obs"].unflatten(1, (-1, 3)).flatten(0, 1)


def test_masks(g):
    agent = make_agent_of(g, "madi")
    with torch.no_grad():
        masks = masker_of(agent).masks(frames_of(g)).view(len(g["obs"]), -1, *g["obs"].shape[-2:])  # (B, S, H, W)
        seen = see(agent, g["obs"])
    corner, seen_corner = g["mask_corner"], g["masked_obs_corner"]
    assert_close(masks[0, 0], g["mask_obs0_frame0"], 1e-4)
    assert_close(masks[..., : corner.shape[-2], : corner.shape[-1]], corner, 1e-4)
    assert_close(masks.mean((2, 3)), g["mask_mean"], 1e-4)
    deviation = masks.flatten(2).std(2, correction=0)
    assert_close(deviation, g["mask_std"], 1e-3)
    assert_close(seen[..., : seen_corner.shape[-2], : seen_corner.shape[-1]], seen_corner, 1e-4)
    assert_close(seen.mean((2, 3)), g["masked_obs_mean"], 1e-4)
    assert_close(agent.critic.encoder(seen), g["encoder_critic_masked_obs"], 1e-4)
    assert_close(masks.mean(), g["hard/avg_value"], 1e-4)


@pytest.mark.parametrize(("threshold", "rule"), [("hard/threshold", "fix"), ("hard/avg_value", "avg"), ("hard/quantile_value", "quantile")])
def test_hard_masks(g, threshold, rule):
    """Ours has fixed thresholds; those of the other two rules are given."""
    agent = make_agent_of(g, "madi", "masker.type=hard", f"masker.threshold={float(g[threshold])!r}")
    masks = masker_of(agent).masks(frames_of(g)).view(len(g["obs"]), -1, *g["obs"].shape[-2:])
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert (masks.sum((2, 3)) - g[f"hard/{rule}_count"]).abs().max() <= 3
    if rule == "fix":
        theirs = np.unpackbits(g["hard/fix_obs0_bits"].cpu().numpy())[: masks[0].numel()]
        assert (masks[0].flatten() != tensor(theirs)).sum() <= 3


def test_the_masker_steps_with_the_critic(g):
    agent = make_agent_of(g, "madi")
    critic_step(agent, g)
    assert_steps(agent, g, "madi/after_step", CRITIC)


def test_actor_of_madi(g):
    agent = make_agent_of(g, "madi")
    assert_policy(agent, g, "madi")
    assert all(p.grad is None for p in masker_of(agent).parameters())


def test_whole_update_of_madi(g):
    agent = make_agent_of(g, "madi")
    for name, ours in whole_update(agent, g).items():
        assert_close(ours, g[f"madi/after_update/{name}_loss"], 1e-4)
    assert_close(norm(agent.actor.policy.parameters()), g["madi/after_update/gradnorm_actor_mlp"], 1e-3)
    assert_steps(agent, g, "madi/after_update")
