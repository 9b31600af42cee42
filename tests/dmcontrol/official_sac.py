"""Agents with the weights, inputs and random choices of dmc_curl.npz, dmc_drq.npz and dmc_sac_ae.npz.

The agents are built as a run of preset paper builds them, with every size and rate read from the arrays. Images are read in parts of
two. Tensors go by their official labels and in their official layout.
"""

from collections.abc import Iterable

import torch
from official import assert_close, below, fp32, norm
from torch import Tensor, nn

from DMControl.agents.sac import SAC
from DMControl.core.method.augment import Gather, View
from DMControl.core.method.encoder import Trunk
from DMControl.core.method.frames import Frames
from DMControl.methods import make_agent
from DMControl.replay import Batch
from DMControl.settings import read_config

Golden = dict[str, Tensor]


def make_agent_of(g: Golden, method: str, *settings: str) -> SAC:
    convs = {k.split(".")[3] for k in g if k.startswith("w/critic.encoder.convs.")}
    fc = next(g[f"w/critic.encoder.{name}.weight"] for name in ("fc", "head.0") if f"w/critic.encoder.{name}.weight" in g)
    hidden = next(len(v) for k, v in g.items() if k.startswith("w/critic.Q1."))
    lr = float(g["lr"] if "lr" in g else g["critic_lr"])
    taus = [float(g[name] if name in g else g["tau"]) for name in ("critic_tau", "encoder_tau")]
    values = {
        "image.size": g["obs"].shape[-1], "image.crop": g.get("anchor_image0", g["obs"]).shape[-1], "image.stack": g["obs"].shape[1] // 3,
        "encoder.filters": len(g["w/critic.encoder.convs.0.weight"]), "encoder.dim": len(fc), "sac.hidden": hidden,
        "encoder.strides": str([2] + [1] * (len(convs) - 1)).replace(" ", ""), "sac.batch_size": len(g["obs"]),
        "sac.discount": float(g["discount"]), "sac.lr": lr, "sac.alpha_lr": float(g.get("alpha_lr", lr)),
        "sac.critic_tau": taus[0], "sac.encoder_tau": taus[1], "chunk": 2,
    }  # fmt: skip
    words = [f"method={method}", "preset=paper", "task=walker_walk", *(f"{k}={v}" for k, v in values.items()), *settings]
    agent = make_agent(read_config(words), g["action"].shape[-1], fp32())
    agent.actor_optimizer.lr = float(g.get("actor_lr", lr))
    load(agent, g)
    return agent


def labelled(agent: SAC, g: Golden) -> dict[str, nn.Parameter]:
    """Every trained tensor by its official label."""
    fc, ln, trunk = ("head.0", "head.1", "") if "w/critic.encoder.head.0.weight" in g else ("fc", "ln", ".trunk")
    modules: dict[str, nn.Module] = {"actor.trunk": agent.actor.policy}
    for label, critic in (("critic", agent.critic), ("critic_target", agent.target)):
        modules |= {f"{label}.encoder.convs": critic.encoder.trunk.convs, f"{label}.Q1{trunk}": critic.q1, f"{label}.Q2{trunk}": critic.q2}
    heads = {"critic": agent.critic.encoder.head, "critic_target": agent.target.encoder.head, "actor": agent.actor.head}
    for label, head in heads.items():
        modules |= {f"{label}.encoder.{fc}": head.fc, f"{label}.encoder.{ln}": head.ln}
    if hasattr(agent.objective, "decoder"):
        modules |= {"decoder.fc": agent.objective.decoder.fc, "decoder.deconvs": agent.objective.decoder.convs}
    found = {f"{label}.{k}": p for label, module in modules.items() for k, p in module.named_parameters()}
    return found | ({"W": agent.objective.similarity} if hasattr(agent.objective, "similarity") else {})


def theirs(tensor: Tensor, label: str, trunk: Trunk) -> Tensor:
    """In the official layout, where the convolutions' output is read channel by channel."""
    shape = (trunk.side, trunk.side, trunk.channels)
    if label.startswith("decoder.fc."):
        return tensor.detach().unflatten(0, shape).movedim(2, 0).flatten(0, 2)
    if tensor.ndim == 2 and tensor.shape[1] == trunk.features:
        return tensor.detach().unflatten(1, shape).movedim(3, 1).flatten(1)
    return tensor.detach()


def ours(tensor: Tensor, label: str, trunk: Trunk) -> Tensor:
    """In this project's layout."""
    shape = (trunk.channels, trunk.side, trunk.side)
    if label.startswith("decoder.fc."):
        return tensor.unflatten(0, shape).movedim(0, 2).flatten(0, 2)
    if tensor.ndim == 2 and tensor.shape[1] == trunk.features:
        return tensor.unflatten(1, shape).movedim(1, 3).flatten(1)
    return tensor


def load(agent: SAC, g: Golden) -> None:
    """The weights of the file; SAC+AE's target encoder begins as a copy."""
    trunk = agent.critic.encoder.trunk
    with torch.no_grad():
        for label, parameter in labelled(agent, g).items():
            given = g.get(f"w/{label}", g.get(f"w/{label}".replace("critic_target.encoder", "critic.encoder")))
            parameter.copy_(ours(given, label, trunk))
        agent.log_alpha.copy_(g["log_alpha"])


def moved(corners: Tensor, size: int, out: int, pad: int = 0) -> View:
    """The view whose image i begins at corners[i], (row, column), of the image with `pad` replicated pixels around it."""
    inner = torch.arange(out)
    rows, columns = ((corners[:, axis, None] + inner - pad).clamp(0, size - 1) for axis in (0, 1))
    return View((Gather(rows, columns, None, run=pad == 0),))


def give(agent: SAC, views: Iterable[View] = (), noises: Iterable[Tensor] = ()) -> None:
    """The agent's next random choices, in their order."""
    view, noise = iter(views), iter(noises)
    agent.augment.draw = lambda n, channels, generator: next(view)
    agent._normal = lambda n: next(noise)


class OneBatch:
    """A replay that gives the transitions of one of the file's two updates."""

    def __init__(self, g: Golden, update: int) -> None:
        obs, next_obs = (Frames.of_images(g[name]) for name in ("obs", "next_obs"))
        self.batch = Batch(obs, g["action"][update], g["reward"][update], next_obs, g["not_done"][update])

    def sample(self, n: int) -> Batch:
        assert n == len(self.batch.action)
        return self.batch


def record_targets(agent: SAC) -> list[Tensor]:
    """Collects what the agent's target_value gives, part by part."""
    found, inner = [], agent.target_value

    def recording(*arguments: Tensor) -> Tensor:
        found.append(inner(*arguments))
        return found[-1]

    agent.target_value = recording
    return found


def assert_gradients(agent: SAC, g: Golden, case: str, groups: dict[str, str]) -> None:
    """Gradients under `case`, whole and their first rows, and the norms of the groups, label -> beginning of its tensors' labels."""
    trunk, tensors = agent.critic.encoder.trunk, labelled(agent, g)
    found = {f"{case}/": below(g, f"{case}/"), f"{case}_rows/": below(g, f"{case}_rows/")}
    assert all(found.values())
    for rows, wanted in ((False, found[f"{case}/"]), (True, found[f"{case}_rows/"])):
        for label, value in wanted.items():
            gradient = theirs(tensors[label].grad, label, trunk)
            assert_close(gradient[: len(value)] if rows else gradient, value, 1e-3)
    prefix = case.removesuffix("grad").removesuffix("critic_").removesuffix("actor_")
    for name, beginning in groups.items():
        assert_close(norm(p for label, p in tensors.items() if label.startswith(beginning)), g[f"{prefix}gradnorm/{name}"], 1e-3)


def assert_no_gradient(agent: SAC, g: Golden, beginnings: tuple[str, ...]) -> None:
    assert all(p.grad is None for label, p in labelled(agent, g).items() if label.startswith(beginnings))


def assert_displaced(agent: SAC, g: Golden, case: str, rate: float, share: float) -> None:
    """How far the tensors under `case` moved from w/, to `share` of `rate`; log_alpha to 3e-3 of its own rate."""
    trunk, tensors = agent.critic.encoder.trunk, labelled(agent, g)
    whole, rows = below(g, f"{case}/"), below(g, f"{case}_rows/")
    assert whole
    for label, after in [*whole.items(), *rows.items()]:
        if label == "log_alpha":
            alpha_lr = float(g.get("alpha_lr", g.get("lr")))
            assert abs(float(agent.log_alpha.detach()) - float(after)) <= 3e-3 * alpha_lr + 1e-7  # fp32 holds log_alpha to 1e-7
            continue
        now = theirs(tensors[label], label, trunk)
        error = (now[: len(after)] - after).abs().max()
        assert error <= share * rate, f"{case}, {label}: off by {float(error / rate):.2g} of the rate"
