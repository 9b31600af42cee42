"""SLAC against the official code's numbers."""

import pytest
from official import assert_close, norm, tensor
from official_slac import inputs_of, slac_of
from official_world_models import time_first

pytestmark = pytest.mark.golden
MODEL = {
    "compressor.1": "compressor.convs.0", "prior.z1.2": "z1_prior.layers.4", "prior.z2.1": "z2_next.layers.2",
    "prior.z2_first.2": "z2_first.layers.4", "post.z1.2": "z1_posterior.layers.4", "post.z1_first.2": "z1_posterior_first.layers.4",
    "reward.2": "reward.layers.4", "decoder.5": "decoder.convs.4",
}  # fmt: skip
SAC = {"critic": {"critic1.0": "q1.0", "critic2.2": "q2.4"}, "actor": {"actor.0": "0", "actor.2": "4"}}


@pytest.fixture
def case(golden):
    g = {k: tensor(v) for k, v in golden("slac").items()}
    return (slac_of(g), g, *inputs_of(g))


def assert_gradients(module, g, prefix, names):
    found = dict(module.named_parameters())
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            if f"{prefix}/{theirs}.{kind}" in g:
                assert_close(found[f"{ours}.{kind}"].grad, g[f"{prefix}/{theirs}.{kind}"], 2e-3)


def chain_of(agent, g, obs, steps, draw):
    shape = steps.reward.shape
    return agent.follow(obs.whole().unflatten(0, shape), steps, draw, slice(None))


def test_the_chain(case):
    agent, g, *inputs = case
    features, chain = chain_of(agent, g, *inputs)
    prior = agent.model.prior(chain, inputs[1])
    pairs = [(features, "features"), (chain.z1, "post/z1"), (chain.z2, "post/z2"), (chain.q1.mean, "post/z1_mean")]
    pairs += [(chain.q1.std, "post/z1_std"), (prior.mean, "prior/z1_mean"), (prior.std, "prior/z1_std"), (chain.q1.kl(prior), "kl")]
    for ours, name in pairs:
        assert_close(ours, time_first(g[name]), 1e-4)


def test_what_the_model_tells(case):
    agent, g, obs, steps, draw = case
    _, chain = chain_of(agent, g, obs, steps, draw)
    mean = agent.model.decoder(chain.latent.flatten(0, 1))
    assert_close(mean[0].permute(1, 2, 0), g["image_mean_first"], 1e-4)
    told = agent.model.reward(chain.z1[:-1], chain.z2[:-1], steps.action[:-1], chain.z1[1:], chain.z2[1:])
    assert_close(told.mean[..., 0], time_first(g["reward_mean"]), 1e-4)
    assert_close(told.std[..., 0], time_first(g["reward_std"]), 1e-4)
    losses = agent.model.losses(chain, obs.whole(), steps)
    assert_close(losses["reward"], -g["reward_log_prob_sum"], 1e-4)
    assert_close(losses["image"], -g["image_log_prob"].sum(1).mean(), 1e-4)
    assert_close(sum(losses.values()), g["model_loss_all_rows"], 1e-4)


def test_the_models_gradients(case):
    agent, g, *inputs = case
    metrics, _, _ = agent.model_gradient(*inputs)
    assert_close(metrics["loss/model"], g["model_loss"], 1e-4)
    assert_close(norm(agent.model.parameters()), g["gradnorm/model"], 2e-3)
    assert_gradients(agent.model, g, "grad/model", MODEL)


def test_the_losses_of_sac(case):
    agent, g, obs, steps, draw = case
    _, features, chain = agent.model_gradient(obs, steps, draw)
    batch = agent.newest_step(features, chain.latent, steps)
    names = {"state": "critic_state", "next_state": "critic_next_state", "seen": "actor_input", "next_seen": "actor_next_input"}
    for ours, name in names.items():
        assert_close(getattr(batch, ours), g[name], 1e-4)
    action, log_pi, _ = agent.policy(batch.next_seen, draw.next_action)
    assert_close(action, g["next_action"], 1e-4)
    assert_close(log_pi, g["next_log_pi"], 1e-3)
    for number, q in enumerate(agent.target(batch.next_state, action), 1):
        assert_close(q, g[f"target_q{number}"], 1e-4)
    pi, _, _ = agent.policy(batch.seen, draw.action)
    assert_close(pi, g["pi"], 1e-4)
    for module in agent.modules.values():
        module.zero_grad()
    metrics = agent.sac_gradients(batch, draw)
    for name in ("critic", "actor", "alpha"):
        assert_close(metrics[f"loss/{name}"], g[f"{name}_loss"], 1e-3)
    for name, names in SAC.items():
        assert_close(norm(agent.modules[name].parameters()), g[f"gradnorm/{name}"], 1e-3)
        assert_gradients(agent.modules[name], g, f"grad/{name}", names)
    assert_close(agent.log_alpha.grad, g["grad/alpha/log_alpha"], 1e-3)
    assert all(p.grad is None for p in agent.model.parameters())
