"""Dreamer against the official code's numbers."""

import pytest
import torch
from official import assert_close, norm, tensor
from official_world_models import chunk_of, dreamer_of, gradients, time_first

from DMControl.agents.dreamer import Draw, Imagined, Policy, lambda_return
from DMControl.agents.rssm import State
from DMControl.agents.world_agent import parameters

pytestmark = pytest.mark.golden
MODEL = {
    "encoder.1.weight": ("encoder", "convs.0.weight"), "rssm.img3.weight": ("rssm", "prior_out.weight"),
    "rssm.obs1.bias": ("rssm", "posterior_hidden.bias"), "reward.out.weight": ("reward", "4.weight"),
    "decoder.5.bias": ("decoder", "convs.3.bias"), "rssm.gru.weight_hh": ("rssm", "cell.weight_hh"),
}  # fmt: skip
ACTOR = {f"{name}.{kind}": ("actor", f"{place}.{kind}") for name, place in (("0", 0), ("out", 8)) for kind in ("weight", "bias")}
VALUE = {name: ("value", path.replace("8", "6")) for name, (_, path) in ACTOR.items()}


@pytest.fixture
def g(golden):
    return {k: tensor(v) for k, v in golden("dreamer").items()}


def rows(g, array):
    """The official order of the starts, b * T + t, in ours, t * B + b: an axis of B * T."""
    batch, length = g["reward"].shape
    return torch.arange(batch * length).view(batch, length).T.flatten() if array is None else array[:, rows(g, None)]


def draw_of(g):
    return Draw(g["noise/post"][:, None], g["noise/imag_state"][:, None], rows(g, g["noise/imag_action"]))


@pytest.mark.parametrize("free", ["free3", "free_small"])
def test_the_models_loss_and_gradients(g, free):
    agent = dreamer_of(g, f"dreamer.free_nats={float(g[f'{free}/free_nats'])}")
    metrics, _ = agent.model_gradient(chunk_of(g), draw_of(g))
    assert_close(metrics["loss/model"], g[f"{free}/model_loss"], 1e-4)
    assert_close(metrics["loss/image"], -g["image_log_prob"].mean(), 1e-4)
    assert_close(metrics["loss/reward"], -g["reward_log_prob"].mean(), 1e-4)
    assert_close(norm(parameters(agent.encoder, agent.rssm, agent.decoder, agent.reward)), g[f"{free}/model_grad_norm"], 2e-3)
    for name, ours in gradients(agent.modules, MODEL).items():
        assert_close(ours, g[f"{free}/model_grad/{name}"], 2e-3)
    assert all(p.grad is None for p in parameters(agent.actor, agent.value))


def test_the_heads(g):
    agent = dreamer_of(g)
    features = torch.cat([g["post/stoch"], g["post/deter"]], -1)
    assert_close(agent.reward(features)[..., 0], g["reward_mean"], 1e-4)
    assert_close(agent.value(features)[..., 0], g["value_mean"], 1e-4)


def test_imagination_and_its_losses(g):
    agent = dreamer_of(g)
    start = State(*(time_first(g[f"post/{part}"]).flatten(0, 1) for part in ("stoch", "deter")))
    imagined = agent.imagine(start, draw_of(g))
    for name, ours in (("feat", imagined.features), ("reward", imagined.reward), ("value", imagined.value)):
        assert_close(ours, rows(g, g[f"imag/{name}"]), 1e-4)
    assert_close(agent.returns(imagined), rows(g, g["imag/returns"]), 1e-4)
    metrics = agent.behaviour_gradients(start, draw_of(g))
    for part, names in (("actor", ACTOR), ("value", VALUE)):
        assert_close(metrics[f"loss/{part}"], g[f"{part}_loss"], 1e-4)
        assert_close(norm(agent.modules[part].parameters()), g[f"{part}_grad_norm"], 1e-3)
        for name, ours in gradients(agent.modules, names).items():
            assert_close(ours, g[f"{part}_grad/{name}"], 1e-3)
    assert all(p.grad is None for p in parameters(agent.encoder, agent.rssm, agent.decoder, agent.reward))


def test_the_policy(g):
    agent = dreamer_of(g)
    policy = agent.policy_of(g["policy/features"])
    sample = policy.sample(g["policy/noise"])
    for name, ours in (("mean", policy.mean), ("std", policy.std), ("sample", sample)):
        assert_close(ours, g[f"policy/{name}"], 1e-4)
    assert_close(policy.log_prob(sample), g["policy/log_prob"], 2e-3)
    assert_close(Policy(policy.mean[:1], policy.std[:1]).mode(g["policy/mode_noise"]), g["policy/mode"], 1e-4)


def test_lambda_returns(g):
    lam = {name: g[f"lambda/{name}"] for name in ("reward", "value", "pcont", "bootstrap", "lambda", "returns")}
    ours = lambda_return(lam["reward"], lam["value"], lam["pcont"], lam["bootstrap"], float(lam["lambda"]))
    assert_close(ours, lam["returns"], 1e-5)


def test_the_bootstrap_of_tf1_is_the_value_before_the_last(g):
    reward, value = (rows(g, g[f"imag/{name}"]) for name in ("reward", "value"))
    imagined = Imagined(rows(g, g["imag/feat"]), reward, value, torch.zeros_like(value))
    tf2, tf1 = (dreamer_of(g, f"dreamer.version={version}").returns(imagined) for version in ("tf2", "tf1"))
    assert_close(tf2, rows(g, g["imag/returns"]), 1e-4)
    assert_close(tf1[-1], reward[-2] + 0.99 * value[-2], 1e-5)
    assert not torch.allclose(tf1, tf2, rtol=1e-3)
