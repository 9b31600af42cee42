"""Agents of the MaDi family with the weights, inputs and random choices of madi_family.npz.

The agents are built as a run of preset madi builds them, with every size read from the arrays. What the tests touch of the agents'
insides is here. Tensors go by their official labels.
"""

from collections.abc import Iterable

import torch
from official import assert_close, assert_moved, below, fp32, norm, to_ours
from torch import Tensor, nn

from DMControl.agents.sac import SAC
from DMControl.core.method.augment import View
from DMControl.core.method.frames import Frames
from DMControl.core.method.masker import Masker
from DMControl.core.method.objective import Metrics
from DMControl.core.method.strong_augmentation import Overlay, StrongAugmentation
from DMControl.methods import make_agent
from DMControl.methods.sgqn import Attribution
from DMControl.methods.soda import SODA
from DMControl.replay import Batch
from DMControl.settings import read_config

Golden = dict[str, Tensor]
GROUPS = {  # labels of gradient norms that are not the beginning of a tensor's label
    "critic_proj": "critic.proj", "Q1": "critic.Q1", "Q2": "critic.Q2", "actor_proj": "actor.proj", "actor_mlp": "actor.mlp",
    "head": "soda.head", "predictor": "soda.predictor",
}  # fmt: skip
STRONG = "strong_augmentation"
BLOCKS = {"sac": (), "svea": (STRONG,), "madi": (STRONG, "masker"), "soda": (STRONG, "soda"), "sgqn": (STRONG, "sgqn")}


def make_agent_of(g: Golden, method: str, *settings: str) -> SAC:
    """Light augmentation is off, since obs and next_obs are views already; images are read in parts of two."""
    convs = {k.split(".")[1] for k in g if k.startswith("w/convs.")}
    masks = {k.split(".")[2] for k in g if k.startswith("w/masker.convs.")}
    size = {
        "image.size": g["obs"].shape[-1], "image.crop": g["obs"].shape[-1], "image.stack": g["obs"].shape[1] // 3,
        "encoder.filters": len(g["w/convs.0.weight"]), "encoder.strides": str([2] + [1] * (len(convs) - 1)).replace(" ", ""),
        "encoder.dim": len(g["w/critic.proj.0.weight"]), "sac.hidden": len(g["w/critic.Q1.0.weight"]),
        "sac.batch_size": len(g["obs"]), "sac.discount": float(g["discount"]), "augment.order": "[]", "chunk": 2,
    }  # fmt: skip
    own = {
        "strong_augmentation": {"strong_augmentation.alpha": float(g["overlay_alpha"]), "strong_augmentation.images": 1},
        "masker": {"masker.depth": len(masks), "masker.width": len(g["w/masker.convs.0.weight"])},
        "soda": {"soda.batch_size": len(g["obs"])},
        "sgqn": {"sgqn.quantile": round(float(g["quantile"]), 6)},
    }
    for block in BLOCKS[method]:
        size |= own[block]
    config = read_config(["task=walker_walk", f"method={method}", "preset=madi", *(f"{k}={v}" for k, v in size.items()), *settings])
    agent = make_agent(config, g["action"].shape[1], fp32())
    load(agent, g)
    if BLOCKS[method]:
        give_overlays(strong_of(agent), g)
    return agent


def masker_of(agent: SAC) -> Masker | None:
    return agent.pixels if isinstance(agent.pixels, Masker) else None


def see(agent: SAC, image: Tensor) -> Tensor:
    """What the encoders read of an image."""
    return agent.pixels(image)


def strong_of(agent: SAC) -> StrongAugmentation:
    return (agent.objective or agent.critic_loss).strong


def soda_of(agent: SAC) -> SODA | None:
    """Holds projector, predictor and the slow copy of the projector."""
    return agent.objective if isinstance(agent.objective, SODA) else None


def sgqn_of(agent: SAC) -> Attribution | None:
    """Holds the attribution decoder."""
    return agent.objective if isinstance(agent.objective, Attribution) else None


def labelled(agent: SAC) -> dict[str, nn.Parameter]:
    """Every trained tensor by its official label."""
    critic, target, actor = agent.critic, agent.target, agent.actor
    modules = {
        "convs": critic.encoder.trunk.convs, "critic.proj.0": critic.encoder.head.fc, "critic.proj.1": critic.encoder.head.ln,
        "critic.Q1": critic.q1, "critic.Q2": critic.q2,
        "actor.proj.0": actor.head.fc, "actor.proj.1": actor.head.ln, "actor.mlp": actor.policy,
        "target.convs": target.encoder.trunk.convs, "target.proj.0": target.encoder.head.fc, "target.proj.1": target.encoder.head.ln,
        "target.Q1": target.q1, "target.Q2": target.q2,
    }  # fmt: skip
    if masker_of(agent):
        modules["masker.convs"] = masker_of(agent).convs
    if soda := soda_of(agent):
        modules |= {"soda.head": soda.projector.head, "soda.predictor": soda.predictor}
        modules |= {"soda_target.head": soda.target.head, "soda_target.convs": soda.target.trunk.convs}
    if sgqn := sgqn_of(agent):
        modules |= {"proj": sgqn.decoder.fc} | {f"conv{n}": conv for n, conv in enumerate(sgqn.decoder.convs, 1)}
    out = {f"{label}.{k}": p for label, module in modules.items() for k, p in module.named_parameters()}
    return out | {"log_alpha": agent.log_alpha}


def given(g: Golden, label: str) -> Tensor | None:
    """The weight of that label; the convolutions of SODA's slow copy are those of the target."""
    return g["log_alpha"] if label == "log_alpha" else g.get("w/" + label.replace("soda_target.convs", "target.convs"))


def load(agent: SAC, g: Golden) -> None:
    trunk = agent.critic.encoder.trunk
    with torch.no_grad():
        for label, parameter in labelled(agent).items():
            weight = given(g, label)
            if weight is not None:
                parameter.copy_(to_ours(weight, trunk) if weight.ndim == 2 and weight.shape[1] == trunk.features else weight)


def give_overlays(strong: StrongAugmentation, g: Golden) -> None:
    """The given images, whole and unmirrored, in place of what the method would draw."""
    strong.bank, n = g["overlay_image"].permute(0, 2, 3, 1).contiguous(), len(g["overlay_image"])
    strong.draw = lambda count, generator: Overlay(torch.arange(n), torch.zeros(n, 2), torch.ones(n, 2))


def overlaid(agent: SAC, g: Golden) -> Tensor:
    """obs_aug of the description."""
    strong = strong_of(agent)
    return strong.view(g["obs"], strong.draw(len(g["obs"]), agent.generator))


class OneBatch:
    """A replay that gives the same transitions always."""

    def __init__(self, g: Golden) -> None:
        self.batch = Batch(Frames.of_images(g["obs"]), g["action"], g["reward"], Frames.of_images(g["next_obs"]), g["not_done"])

    def sample(self, n: int) -> Batch:
        assert n == len(self.batch.action)
        return self.batch


def give_noise(agent: SAC, *noises: Tensor) -> None:
    """The policy's normal draws, in their order."""
    rest = iter(noises)
    agent._normal = lambda n: next(rest)


def no_view(agent: SAC, g: Golden) -> View:
    return agent.augment.draw(len(g["obs"]), g["obs"].shape[1], agent.generator)


def judge(agent: SAC, g: Golden) -> Tensor:
    """The deterministic actions on obs."""
    actions, _ = agent.act(Frames.of_images(g["obs"]), agent.begin(len(g["obs"])), explore=False)
    return torch.from_numpy(actions)


def target_values(agent: SAC, g: Golden) -> Tensor:
    return agent.target_value(g["next_obs"], g["reward"], g["not_done"], g["noise_next"])


def critic_step(agent: SAC, g: Golden) -> Tensor:
    """A step of the critic, and of the Masker; gives the loss."""
    give_noise(agent, g["noise_next"])
    return agent.update_critic(OneBatch(g).batch, no_view(agent, g))["loss/critic"]


def actor_step(agent: SAC, g: Golden) -> tuple[Tensor, Tensor]:
    """A step of actor and temperature; gives their losses."""
    give_noise(agent, g["noise_actor"])
    metrics = agent.update_actor(OneBatch(g).batch.obs, no_view(agent, g))
    return metrics["loss/actor"], metrics["loss/alpha"]


def whole_update(agent: SAC, g: Golden) -> dict[str, Tensor]:
    """The first update of a run, an even one; gives the losses of critic, actor and temperature."""
    give_noise(agent, g["noise_next"], g["noise_actor"])
    metrics = agent.update(OneBatch(g), 0).metrics
    return {name: metrics[f"loss/{name}"] for name in ("critic", "actor", "alpha")}


def objective_step(agent: SAC, g: Golden) -> Metrics:
    """A step of SODA or of SGQN's decoder, and of the targets that follow it."""
    metrics = agent.update_objective(OneBatch(g).batch.as_sequence(), no_view(agent, g))
    agent.objective.move_targets()
    return metrics


def soda_step(agent: SAC, g: Golden) -> Tensor:
    """SODA's own step; next_obs stands for the second crop of obs; gives the loss."""
    crops = iter((g["obs"], g["next_obs"]))
    agent.augment.view = lambda frames, view: next(crops)
    return objective_step(agent, g)["loss/soda"]


def attribution_step(agent: SAC, g: Golden) -> Tensor:
    """The step of SGQN's decoder; gives the loss."""
    return objective_step(agent, g)["loss/sgqn"]


def fill_colour(agent: SAC, g: Golden) -> Tensor:
    """What SGQN hides pixels behind."""
    return agent.critic_loss.draw(OneBatch(g).batch, no_view(agent, g), agent.generator)


def assert_gradients(agent: SAC, g: Golden, case: str, only: Iterable[str] = ("",)) -> None:
    """Norms and whole gradients under `case`, of the labels that begin as one of `only`."""
    ours, wanted = labelled(agent), tuple(only)
    norms = {GROUPS.get(k, k): v for k, v in below(g, f"{case}/gradnorm/").items()}
    norms = {k: v for k, v in norms.items() if k.startswith(wanted)}
    whole = {k: v for k, v in below(g, f"{case}/grad/").items() if k.startswith(wanted)}
    assert norms and whole
    for label, theirs in norms.items():
        assert_close(norm(p for k, p in ours.items() if k.startswith(f"{label}.")), theirs, 1e-3)
    for label, theirs in whole.items():
        assert_close(ours[label].grad, theirs, 1e-3)


def assert_steps(agent: SAC, g: Golden, case: str, only: Iterable[str] = ("",), owner: str = "") -> None:
    """Movements of the tensors under `case`, of the labels that begin as one of `only`; `owner` comes before the labels."""
    ours, after = labelled(agent), {k: v for k, v in below(g, f"{case}/").items() if k.startswith(tuple(only))}
    after = {owner + k: v for k, v in after.items() if owner + k in ours}
    assert after
    for label, theirs in after.items():
        assert_moved(ours[label], given(g, label), theirs)
