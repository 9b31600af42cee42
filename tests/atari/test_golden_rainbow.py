"""The distributional loss against the official code's numbers."""

import numpy as np
import pytest
import torch

from Atari.agents.values import Distribution, distributional_loss, project

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]


@pytest.fixture
def g(golden):
    return {k: torch.from_numpy(np.asarray(v).copy()).to(torch.get_default_device()) for k, v in golden("rainbow_loss").items()}


def value(g):
    return Distribution(float(g["v_min"]), float(g["v_max"]), int(g["n_atoms"]), torch.get_default_device())


def target(g):
    best = value(g).q(g["online_next_ps"].float().log()).argmax(1)
    chosen = g["target_ps"][torch.arange(len(best)), best]
    discount_n = float(g["discount"]) ** int(g["n_step"])
    return best, project(chosen, g["return_n"], g["done_n"].float(), discount_n, g["z"])


def test_support(g):
    torch.testing.assert_close(value(g).support, g["z"].float(), rtol=1e-5, atol=1e-5)


def test_target(g):
    best, projected = target(g)
    assert (best == g["next_action"]).all()
    torch.testing.assert_close(projected, g["projected_target"], rtol=1e-4, atol=1e-6)


def test_loss_priority_and_gradient(g):
    log_p = g["log_pred_ps"].clone().requires_grad_()
    loss, priority = distributional_loss(log_p, g["action"], target(g)[1])
    torch.testing.assert_close(loss, g["loss"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(priority, g["priority_kl"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((loss * g["is_weights"]).mean(), g["weighted_mean_loss"], rtol=1e-4, atol=1e-6)
    loss.mean().backward()
    torch.testing.assert_close(log_p.grad, g["grad_log_pred_ps_of_mean_loss"], rtol=1e-3, atol=1e-6)
