"""CURL against the official code's numbers."""

import pytest
import torch
from official import assert_close, tensor
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

from DMControl.core.method.frames import Frames

pytestmark = pytest.mark.golden
GROUPS = {
    "encoder_convs": "critic.encoder.convs.", "encoder_fc": "critic.encoder.fc.", "encoder_ln": "critic.encoder.ln.",
    "encoder": "critic.encoder.", "W": "W",
}  # fmt: skip


@pytest.fixture
def case(golden):
    g = {k: tensor(v) for k, v in golden("dmc_curl").items()}
    return make_agent_of(g, "curl", f"curl.lr={float(g['encoder_lr'])}"), g


def crops(g, name, update):
    return moved(g[f"crop_{name}"][update], g["obs"].shape[-1], g["anchor_image0"].shape[-1])


def contrast(agent, g, update):
    """A step of the contrastive part; gives its loss."""
    give(agent, [crops(g, "positive", update)])
    return agent.update_objective(OneBatch(g, update).batch.as_sequence(), crops(g, "anchor", update))["loss/curl"]


def test_crops(case):
    agent, g = case
    for name in ("anchor", "positive"):
        assert torch.equal(agent.augment.view(Frames.of_images(g["obs"]), crops(g, name, 0))[0], g[f"{name}_image0"])


def test_logits_loss_and_gradients(case):
    agent, g = case
    objective, obs = agent.objective, Frames.of_images(g["obs"])
    anchor, positive = crops(g, "anchor", 0), crops(g, "positive", 0)
    assert_close(objective.describe(agent.critic.encoder, obs, anchor), g["z_anchor"], 1e-4)
    assert_close(objective.describe(agent.target.encoder, obs, positive), g["z_positive"], 1e-4)
    logits = objective.logits(obs, anchor, positive)
    assert_close(logits - logits.amax(1, keepdim=True), g["logits"], 1e-4)
    assert_close(contrast(agent, g, 0), g["loss"], 1e-4)
    assert_gradients(agent, g, "grad", GROUPS)
    assert_no_gradient(agent, g, ("critic_target.", "critic.Q", "actor."))


def test_two_steps(case):
    agent, g = case
    rate = 2 * float(g["encoder_lr"])
    contrast(agent, g, 0)
    assert_displaced(agent, g, "after1", rate, 1e-2)
    assert_close(contrast(agent, g, 1), g["loss_second_update"], 1e-3)
    assert_displaced(agent, g, "after2", rate, 3e-2)


def test_whole_updates(case):
    """The third has the inputs of the first."""
    agent, g = case
    targets = record_targets(agent)
    rate = float(g["critic_lr"]) + 2 * float(g["encoder_lr"])
    for number, update in ((1, 0), (2, 1), (3, 0)):
        views = [crops(g, name, update) for name in ("anchor", "next", "positive")]
        noises = [g["noise_next"][update]] + ([g["noise_actor"]] if number != 2 else [])
        give(agent, views, noises)
        targets.clear()
        metrics = agent.update(OneBatch(g, update), 0).metrics
        near = 1e-4 if number == 1 else 1e-3
        assert_close(torch.cat(targets), g[f"whole/target_Q{number}"], near)
        for ours, theirs in (("critic", "critic"), ("curl", "curl"), ("actor", "actor"), ("alpha", "alpha")):
            if f"whole/{theirs}_loss{number}" in g:
                assert_close(metrics[f"loss/{ours}"], g[f"whole/{theirs}_loss{number}"], near)
        assert ("loss/actor" in metrics) == (number != 2)
        assert_displaced(agent, g, f"whole/after{number}", rate, 1e-2 if number == 1 else 3e-2)
