"""Agents of SPR and PlayVirtual with the weights, inputs and random choices of dmc_playvirtual.npz, every size read from the arrays.

Tensors go by their official labels.
"""

import torch
from official import fp32, to_ours
from torch import Tensor, nn

from DMControl.agents.sac import SAC
from DMControl.core.method.augment import Augmentation, Gather, View
from DMControl.core.method.frames import Frames
from DMControl.core.method.sequence import Sequence
from DMControl.methods import make_agent
from DMControl.methods.spr import Windows
from DMControl.replay import Batch
from DMControl.settings import read_config

Golden = dict[str, Tensor]
DYNAMICS = {"fc": 0, "ln": 1, "fc_mu": 3}  # official label: position among our layers


def make_agent_of(g: Golden, method: str, *settings: str) -> SAC:
    convs = {k.split(".")[3] for k in g if k.startswith("w/critic.encoder.convs.")}
    steps, windows, channels, size, _ = g["obs"].shape
    size = {
        "image.size": size, "image.crop": g["rl_obs"].shape[-1], "image.stack": channels // 3,
        "encoder.filters": len(g["w/critic.encoder.convs.0.weight"]), "encoder.strides": str([2] + [1] * (len(convs) - 1)).replace(" ", ""),
        "encoder.dim": len(g["w/critic.encoder.fc.weight"]), "sac.hidden": len(g["w/critic.Q1.trunk.0.weight"]),
        "sac.batch_size": len(g["rl_obs"]), "sac.discount": float(g["discount"]), "sac.lr": float(g["critic_lr"]),
        "sac.alpha_lr": float(g["alpha_lr"]), "sac.critic_tau": float(g["critic_tau"]), "sac.encoder_tau": float(g["encoder_tau"]),
        "action_repeat": int(g["action_repeat"]), "chunk": 2, "spr.steps": steps - 1, "spr.batch_size": windows,
        "spr.width": len(g["w/transition_model.fc.weight"]), "spr.hidden": len(g["w/global_classifier.0.weight"]),
        "spr.lr": float(g["auxiliary_lr"]), "spr.encoder_lr": float(g["encoder_lr"]), "spr.tau": float(g["momentum_tau"]),
    }  # fmt: skip
    if method == "playvirtual":
        size["playvirtual.copies"] = g["virtual_action"].shape[2]
    config = read_config(["task=walker_walk", f"method={method}", *(f"{k}={v}" for k, v in size.items()), *settings])
    agent = make_agent(config, g["action"].shape[-1], fp32())
    agent.actor_optimizer.lr = float(g["actor_lr"])
    agent.augment = agent.next_augment = Augmentation((), config.image.crop, config.image.crop)  # rl_obs are crops already
    trunk = agent.critic.encoder.trunk
    with torch.no_grad():
        for label, parameter in labelled(agent).items():
            weight = given(g, label)
            parameter.copy_(to_ours(weight, trunk) if label.endswith("encoder.fc.weight") else weight)
    return agent


def labelled(agent: SAC) -> dict[str, nn.Parameter]:
    """Every tensor by its official label."""
    o = agent.objective
    modules = {
        "actor.encoder.fc": agent.actor.head.fc, "actor.encoder.ln": agent.actor.head.ln, "actor.trunk": agent.actor.policy,
        "global_classifier": o.projection, "global_final_classifier": o.prediction, "global_target_classifier": o.target_projection,
    }  # fmt: skip
    for label, critic in (("critic", agent.critic), ("critic_target", agent.target)):
        modules |= {f"{label}.Q1.trunk": critic.q1, f"{label}.Q2.trunk": critic.q2}
    encoders = {"critic.encoder": agent.critic.encoder, "critic_target.encoder": agent.target.encoder, "target_encoder": o.target_encoder}
    for label, encoder in encoders.items():
        modules |= {f"{label}.convs": encoder.trunk.convs, f"{label}.fc": encoder.head.fc, f"{label}.ln": encoder.head.ln}
    for label, name in (("transition_model", "dynamics"), ("reverse_transition_model", "reverse")):
        if hasattr(o, name):
            modules |= {f"{label}.{layer}": getattr(o, name).layers[number] for layer, number in DYNAMICS.items()}
    out = {f"{label}.{k}": p for label, module in modules.items() for k, p in module.named_parameters()}
    return out | {"log_alpha": agent.log_alpha}


def given(g: Golden, label: str) -> Tensor:
    """The weight of that label; the target critic begins as a copy of the critic."""
    return g["log_alpha"] if label == "log_alpha" else g["w/" + label.replace("critic_target.", "critic.")]


def sequence_of(g: Golden) -> Sequence:
    """The windows, with their frames one by one, as the replay keeps them."""
    steps, windows, channels, size, _ = g["obs"].shape
    stack = channels // 3
    frames = g["obs"].transpose(0, 1).reshape(-1, 3, size, size).contiguous()
    index = torch.arange(len(frames)).view(windows * steps, stack)
    nothing, each = torch.zeros(windows, steps), torch.ones(windows)
    return Sequence(Frames(frames, index), g["action"].transpose(0, 1), nothing, nothing, valid=each, weight=each)


def drawn(g: Golden, number: int, cycle: bool) -> Windows:
    """The given random choices of the first (0) or second (1) update."""
    crop, noise, out = g["crop_target"][number][:, 1:], g["intensity_target"][number][:, 1:], g["rl_obs"].shape[-1]
    if cycle:
        crop = torch.cat([crop, g["crop_cycle"][number].transpose(0, 1)], 1)
        noise = torch.cat([noise, g["intensity_cycle"][number].t()], 1)
    actions = g["virtual_action"][number].permute(2, 1, 0, 3) if cycle else None  # (B, M, K, A)
    view = view_of(g["crop_input"][number], g["intensity_input"][number], out)
    target_view = view_of(crop.flatten(0, 1), noise.flatten(), out)
    return Windows(sequence_of(g), view, target_view, crop.shape[1], actions)


def view_of(corner: Tensor, noise: Tensor, out: int) -> View:
    inner = torch.arange(out)
    return View((Gather(corner[:, :1] + inner, corner[:, 1:] + inner, 1 + 0.05 * noise.clamp(-2, 2)),))


class Given:
    """A replay that gives the transitions of an update, and the windows."""

    def __init__(self, g: Golden, number: int) -> None:
        obs, next_obs = (Frames.of_images(g[name]) for name in ("rl_obs", "rl_next_obs"))
        self.batch = Batch(obs, g["rl_action"][number], g["rl_reward"][number], next_obs, g["rl_not_done"][number])
        self.sequence = sequence_of(g)

    def sample(self, n: int) -> Batch:
        assert n == len(self.batch.action)
        return self.batch

    def sample_sequences(self, n: int, length: int) -> Sequence:
        assert (n, length) == self.sequence.action.shape[:2]
        return self.sequence


def give(agent: SAC, g: Golden, number: int) -> None:
    """What the next update draws."""
    agent.objective.draw = lambda sequence, generator: drawn(g, number, hasattr(agent.objective, "reverse"))
    noises = iter((g["noise_next"][number], g["noise_actor"]))
    agent._normal = lambda n: next(noises)
