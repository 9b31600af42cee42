"""DrQ with two views of both observations against the official code's numbers."""

import math

import pytest
import torch
from official import assert_close, below, fp32, tensor
from official_sac import (
    OneBatch,
    assert_displaced,
    assert_gradients,
    assert_no_gradient,
    give,
    make_agent_of,
    moved,
    record_targets,
)
from torch.nn import functional as F

from DMControl.agents.networks import Actor
from DMControl.core.method.encoder import Trunk
from DMControl.core.method.frames import Frames

pytestmark = pytest.mark.golden
CRITIC = {f"critic_{name}": f"critic.{label}." for name, label in (("encoder_convs", "encoder.convs"), ("encoder_head", "encoder.head"))}
CRITIC |= {"critic_Q1": "critic.Q1.", "critic_Q2": "critic.Q2."}


@pytest.fixture
def case(golden):
    g = {k: tensor(v) for k, v in golden("dmc_drq").items()}
    views = f"drq.views={g['shift_obs'].shape[1]}", f"drq.target_views={g['shift_next'].shape[1]}"
    return make_agent_of(g, "drq", *views), g


def shifts(agent, g, name, update, views):
    """The view that holds these shifts; those of an image follow each other."""
    corners = g[f"shift_{name}"][update][views].transpose(0, 1).flatten(0, 1)
    return moved(corners, g["obs"].shape[-1], g["obs"].shape[-1], agent.augment.pad)


def give_update(agent, g, update, actor=True):
    """What a whole update draws: the first view, the next observations', the policy's noise, the further views."""
    first, further = (shifts(agent, g, "obs", update, views) for views in (slice(0, 1), slice(1, None)))
    noise = g["noise_next"][update].transpose(0, 1).flatten(0, 1)
    give(agent, [first, shifts(agent, g, "next", update, slice(None)), further], [noise, *([g["noise_actor"]] if actor else [])])


def update_critic(agent, g):
    give_update(agent, g, 0)
    batch = OneBatch(g, 0).batch
    return agent.update_critic(batch, agent.augment.draw(0, 0, None))


def images(agent, g, name):
    """(views, N, C, H, W)"""
    frames = Frames.of_images(g["obs" if name == "obs" else "next_obs"])
    return [agent.augment.view(frames, shifts(agent, g, name, 0, slice(v, v + 1))) for v in range(g[f"shift_{name}"].shape[1])]


def test_views(case):
    agent, g = case
    for number, image in enumerate(images(agent, g, "obs"), 1):
        assert torch.equal(image[0], g[f"view{number}_image0"])


def test_targets(case):
    agent, g = case
    values = []
    for number, image in enumerate(images(agent, g, "next")):
        noise = g["noise_next"][0, number]
        features = agent.critic.encoder.trunk(image)
        _, action, log_pi, log_std = agent.actor(features, noise)
        mean = agent.actor.policy(agent.actor.head(features)).chunk(2, -1)[0]
        found = {"mean": mean, "std": log_std.exp(), "action": action, "log_prob": log_pi}
        for name, ours in found.items():
            assert_close(ours, g[f"next_{name}"][number], 1e-4)
        for ours, name in zip(agent.target(image, action), ("Q1", "Q2"), strict=True):
            assert_close(ours, g[f"target_{name}"][number], 1e-4)
        values.append(agent.target_value(image, g["reward"][0], g["not_done"][0], noise))
        assert_close(values[-1], g[f"y_view{number + 1}"], 1e-4)
    targets = record_targets(agent)
    update_critic(agent, g)
    assert_close(torch.cat(targets), g["y"], 1e-4)


def test_critic(case):
    agent, g = case
    for number, image in enumerate(images(agent, g, "obs")):
        for ours, name in zip(agent.critic(image, g["action"][0]), ("Q1", "Q2"), strict=True):
            assert_close(ours, g[name][number], 1e-4)
    assert_close(update_critic(agent, g)["loss/critic"], g["critic_loss"], 1e-4)
    assert_gradients(agent, g, "critic_grad", CRITIC)
    assert_no_gradient(agent, g, ("critic_target.", "actor."))


def test_identical_views(case):
    """Twice the loss of one view."""
    agent, g = case
    for name in ("shift_obs", "shift_next", "noise_next"):
        g[name] = g[name].clone()
        g[name][:, 1:] = g[name][:, :1]
    assert_close(update_critic(agent, g)["loss/critic"], g["critic_loss_identical_views"], 1e-4)


def test_actor(case):
    """On view 1 alone; the convolutions get no gradient."""
    agent, g = case
    obs = OneBatch(g, 0).batch.obs
    view, noise = shifts(agent, g, "obs", 0, slice(0, 1)), g["noise_actor"]
    features = agent.critic.encoder.trunk(agent.augment.view(obs, view))
    mean, action, log_pi, log_std = agent.actor(features, noise)
    for name, ours in {"std": log_std.exp(), "action": action, "log_prob": log_pi}.items():
        assert_close(ours, g[f"actor_{name}"], 1e-4)
    assert_close(mean, torch.tanh(g["actor_mean"]), 1e-4)
    for ours, name in zip(agent.critic.values(agent.critic.encoder.head(features), action), ("Q1", "Q2"), strict=True):
        assert_close(ours, g[f"actor_{name}"], 1e-4)
    give(agent, [], [noise])
    metrics = agent.update_actor(obs, view)
    assert_close(metrics["loss/actor"], g["actor_loss"], 1e-4)
    assert_close(metrics["loss/alpha"], g["alpha_loss"], 1e-4)
    assert_close(agent.log_alpha.grad, g["grad_log_alpha"], 1e-3)
    assert_gradients(agent, g, "actor_grad", {"actor_trunk": "actor.trunk.", "actor_encoder_head": "actor.encoder."})
    assert_no_gradient(agent, g, ("critic.", "critic_target."))


def policy(values, exact):
    """An actor that says this mean and deviation whatever it sees, one action per row."""
    actor = Actor(Trunk(3, 16, [2], [3], [1], fp32()), 2, 1, 4, (-10.0, 2.0), exact=exact)
    raw = torch.atanh((values["std"].log() + 10) / 6 - 1)
    actor.policy.forward = lambda state: torch.stack([values["mean"], raw], 1)
    return actor(torch.zeros(len(raw), *(2, 14, 14)), values["noise"][:, None])


def test_log_prob_is_exact_close_to_one(case):
    _, g = case
    values = below({k: v.double() for k, v in g.items()}, "logprob/")
    _, action, log_pi, _ = policy(values, exact=True)
    assert_close(action[:, 0], values["action"], 1e-5)
    assert ((log_pi[:, 0] - values["value"]).abs() <= 1e-5 * values["value"].abs() + 1e-5).all()
    _, _, rounded, _ = policy(values, exact=False)
    assert (rounded[:, 0] - values["value"]).abs().max() > 1
    u = values["mean"] + values["std"] * values["noise"]
    normal = -(values["noise"] ** 2) / 2 - values["std"].log() - math.log(2 * math.pi) / 2
    assert_close(log_pi[:, 0], normal - 2 * (math.log(2) - u - F.softplus(-2 * u)), 1e-6)


def test_whole_updates(case):
    """The third has the inputs of the first."""
    agent, g = case
    targets = record_targets(agent)
    for number, update in ((1, 0), (2, 1), (3, 0)):
        give_update(agent, g, update, actor=number != 2)
        targets.clear()
        metrics = agent.update(OneBatch(g, update), 0).metrics
        near = 1e-4 if number == 1 else 1e-3
        assert_close(torch.cat(targets), g[f"whole/y{number}"], near)
        for name in ("critic", "actor", "alpha"):
            assert (f"loss/{name}" in metrics) == (f"whole/{name}_loss{number}" in g)
            if f"loss/{name}" in metrics:
                assert_close(metrics[f"loss/{name}"], g[f"whole/{name}_loss{number}"], near)
        assert_displaced(agent, g, f"whole/after{number}", float(g["lr"]), 1e-2 if number == 1 else 3e-2)
