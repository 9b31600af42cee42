"""PlaNet against the official code's numbers."""

import pytest
import torch
from official import assert_close, norm, tensor
from official_world_models import chunk_of, gradients, planet_of, time_first

from DMControl.agents.planet import five_bits, refit
from DMControl.agents.rssm import State
from DMControl.agents.world_agent import parameters

pytestmark = pytest.mark.golden
NAMES = {
    "encoder.1.weight": ("encoder", "convs.0.weight"), "transition.in.weight": ("rssm", "enter.weight"),
    "reward.out.weight": ("reward", "6.weight"), "decoder.5.bias": ("decoder", "convs.3.bias"),
    "gru.w_c": ("rssm", "cell.candidate.weight"),
}  # fmt: skip


@pytest.fixture
def g(golden):
    return {k: tensor(v) for k, v in golden("planet").items()}


def test_pixels(g):
    ours = five_bits(g["preprocess/image"][None], g["preprocess/uniform"][None])
    assert_close(ours[0], g["preprocess/out"], 1e-6)
    assert torch.equal(planet_of(g).pictures(g["preprocess/out"]), g["preprocess/postprocess_uint8"])


def test_the_loss_and_its_gradients(g):
    agent = planet_of(g)
    chunk = chunk_of(g)
    fit = agent.fit(chunk, g["noise/post"], torch.full((len(chunk.obs), 3, 64, 64), 0.5))
    assert_close(fit.kl, time_first(g["kl"]), 1e-4)
    assert_close(fit.image, g["objective/image"], 1e-4)
    assert_close(fit.reward, g["objective/reward"], 1e-4)
    loss = agent.loss(fit)
    assert_close(loss, g["loss"], 1e-4)
    loss.backward()
    assert_close(norm(parameters(*agent.modules.values())), g["grad_norm"], 2e-3)
    for name, ours in gradients(agent.modules, NAMES).items():
        assert_close(ours, g[f"grad/{name}"], 2e-3)
    stoch = agent.config.stoch
    assert_close(agent.rssm.prior_out.bias.grad[stoch:], g["grad/transition.std.bias"], 2e-3)
    assert_close(agent.rssm.posterior_out.bias.grad[:stoch], g["grad/posterior.mean.bias"], 2e-3)


@torch.no_grad()
def test_the_planner(g):
    agent = planet_of(g)
    state = State(g["plan/start_sample"], g["plan/start_belief"])
    noises = [(actions[None], states) for actions, states in zip(g["plan/action_noise"], g["plan/state_noise"], strict=True)]
    mean, std = torch.zeros(1, *g["plan/mean"].shape[1:]), torch.ones(1, *g["plan/mean"].shape[1:])
    start = State(*(part.repeat(agent.config.candidates, 1) for part in state))
    for number, (action_noise, state_noise) in enumerate(noises):
        actions = (action_noise * std[:, None] + mean[:, None]).clamp(-1, 1)
        returns = agent.predicted_return(start, actions, state_noise)
        assert_close(returns[0], g["plan/returns"][number], 1e-4)
        mean, std = refit(actions, returns, agent.config.elites)
        assert_close(mean[0], g["plan/mean"][number], 1e-4)
        assert_close(std[0], g["plan/std"][number], 1e-4)
    assert_close(agent.plan(state, noises)[0], g["plan/result"], 1e-4)
