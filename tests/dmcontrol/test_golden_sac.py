"""SAC's three losses against the official code's numbers."""

import pytest
import torch
from official import assert_close, below, fp32, load_head, make_encoder, make_mlp, norm, tensor
from torch import nn

from DMControl.agents.sac import SAC
from DMControl.core.method.encoder import Head
from DMControl.core.method.optim import Adam
from DMControl.core.run.config import Config

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]


@pytest.fixture
def case(golden):
    g = golden("dmc_sac")
    critic, dim = below(g, "w/critic."), g["w/critic.encoder.fc.weight"].shape[0]
    size, action_dim = g["obs"].shape[-1], g["action"].shape[1]
    convs = sum(k.startswith("encoder.convs.") and k.endswith("weight") for k in critic)
    config = Config(
        {
            "image": {"size": size, "crop": size, "stack": g["obs"].shape[1] // 3},
            "encoder": {
                "filters": critic["encoder.convs.0.weight"].shape[0], "strides": [2] + [1] * (convs - 1), "dim": dim,
                "init": "delta_orthogonal", "centre": [], "last_relu": True, "tanh": False,
            },
            "sac": {
                "hidden": critic["Q1.trunk.0.weight"].shape[0], "lr": 1e-3, "alpha_lr": 1e-4, "discount": float(g["discount"]),
                "alpha_betas": [0.5, 0.999], "exact_log_prob": False,
                "init_temperature": 0.1, "log_std": [float(g["log_std_min"]), float(g["log_std_max"])], "critic_tau": 0.01,
                "encoder_tau": 0.05, "weight_decay": 0.0, "actor_every": 2, "target_every": 2, "batch_size": len(g["obs"]),
            },
            "augment": {"order": ["crop"], "next_obs": True, "pad": 4, "intensity": 0.05},
            "quirks": {"rl_without_intensity": True, "rl_crop_misses_last": True},
            "chunk": 0,
            "compile": False,
        }
    )  # fmt: skip
    agent = SAC(config, action_dim, fp32(), torch.Generator(torch.get_default_device()))
    # every layer from the arrays, whatever their widths
    for ours, name in ((agent.critic, "critic"), (agent.target, "critic_target")):
        weights = below(g, f"w/{name}.encoder.")
        ours.encoder = make_encoder(weights, size)
        ours.q1, ours.q2 = (make_mlp(below(g, f"w/{name}.{q}.trunk.")) for q in ("Q1", "Q2"))
    trunk = agent.critic.encoder.trunk
    agent.actor.head = Head(trunk, g["w/actor.encoder.fc.weight"].shape[0])
    load_head(agent.actor.head, below(g, "w/actor.encoder."), trunk)
    agent.actor.policy = make_mlp(below(g, "w/actor.trunk."))
    agent.critic_optimizer, agent.actor_optimizer = Adam(agent.critic.parameters(), 0.0), Adam(agent.actor.parameters(), 0.0)
    with torch.no_grad():
        agent.log_alpha.copy_(tensor(g["log_alpha"]))
    agent.target_entropy = float(g["target_entropy"])
    return agent, {k: tensor(v) for k, v in g.items()}


def test_target_entropy_is_minus_the_action_dimension(case):
    agent, g = case
    assert agent.target_entropy == -g["action"].shape[1]


def test_critic(case):
    agent, g = case
    target = agent.target_value(g["next_obs"], g["reward"], g["not_done"], g["noise_next"])
    assert_close(target, g["target_Q"], 1e-4)
    q1, q2 = agent.critic(g["obs"], g["action"])
    assert_close(q1, g["current_Q1"], 1e-4)
    assert_close(q2, g["current_Q2"], 1e-4)


def test_critic_update_of_the_agent(case):
    """The agent's own update_critic: the loss it reports and the gradients it leaves, in parts of two images."""
    agent, g = case
    from DMControl.core.method.frames import Frames
    from DMControl.replay import Batch

    agent.chunk = 2
    agent._normal = lambda n: g["noise_next"]
    for optimizer in agent.optimizers.values():
        optimizer.lr = 0.0
    batch = Batch(Frames.of_images(g["obs"]), g["action"], g["reward"], Frames.of_images(g["next_obs"]), g["not_done"])
    view = agent.augment.draw(len(g["obs"]), batch.obs.channels, agent.generator)
    metrics = agent.update_critic(batch, view)
    assert_close(metrics["loss/critic"], g["critic_loss"], 1e-4)
    assert_close(norm(agent.critic.encoder.parameters()), g["gradnorm/critic_encoder"], 1e-3)
    assert_close(norm(agent.critic.q1.parameters()), g["gradnorm/critic_Q1"], 1e-3)
    assert_close(norm(agent.critic.q2.parameters()), g["gradnorm/critic_Q2"], 1e-3)
    assert_close(agent.critic.encoder.trunk.convs[0].weight.grad, g["grad/critic_encoder.convs.0.weight"], 1e-3)
    assert_close(agent.critic.encoder.head.ln.bias.grad, g["grad/critic_encoder.ln.bias"], 1e-3)

    agent._normal = lambda n: g["noise_actor"]
    metrics = agent.update_actor(batch.obs, view)
    assert_close(metrics["loss/actor"], g["actor_loss"], 1e-4)
    assert_close(metrics["loss/alpha"], g["alpha_loss"], 1e-4)
    assert_close(norm(agent.actor.policy.parameters()), g["gradnorm/actor_trunk"], 1e-3)
    assert_close(norm(agent.actor.head.fc.parameters()), g["gradnorm/actor_encoder_fc"], 1e-3)
    assert_close(norm(agent.actor.head.ln.parameters()), g["gradnorm/actor_encoder_ln"], 1e-3)
    assert_close(agent.log_alpha.grad, g["grad/log_alpha"], 1e-3)


def test_actor(case):
    agent, g = case
    features = agent.critic.encoder.trunk(g["obs"])
    mean, action, log_pi, log_std = agent.actor(features, g["noise_actor"])
    assert_close(mean, g["actor_mu"], 1e-4)
    assert_close(action, g["actor_pi"], 1e-4)
    assert_close(log_pi, g["actor_log_pi"], 1e-4)
    assert_close(log_std, g["actor_log_std"], 1e-4)
    q1, q2 = agent.critic.values(agent.critic.encoder.head(features), action)
    assert_close(q1, g["actor_Q1"], 1e-4)
    assert_close(q2, g["actor_Q2"], 1e-4)


def test_actor_loss_moves_no_convolution(case):
    agent, g = case
    actor_loss, alpha_loss, _ = agent.actor_losses(g["obs"], g["noise_actor"])
    (actor_loss + alpha_loss).backward()
    assert all(p.grad is None for p in agent.critic.encoder.parameters())
    assert isinstance(agent.actor.head.fc, nn.Linear) and agent.actor.head.fc.weight.grad.abs().sum() > 0
