"""The official names of SLAC's parameters, mapped onto our modules. Every size is read from the arrays."""

import torch
from official import below, fp32
from official_world_models import images, load_linear, time_first
from torch import nn

from DMControl.agents.slac import Draw
from DMControl.agents.slac_model import Steps
from DMControl.core.method.frames import Frames
from DMControl.methods import make_agent
from DMControl.settings import read_config

CONDITIONALS = {
    "z1_posterior_first": "post.z1_first", "z1_posterior": "post.z1", "z1_prior": "prior.z1", "z2_first": "prior.z2_first",
    "z2_next": "prior.z2", "reward": "reward",
}  # fmt: skip


def load_layers(module, weights):
    """Linear layers 0, 1, 2."""
    for number, layer in enumerate(layer for layer in module if isinstance(layer, nn.Linear)):
        load_linear(layer, weights, str(number))


def slac_of(g, *settings):
    """A SLAC of the arrays' sizes, with their weights."""
    w = below(g, "w/")
    (batch, frames, actions), z1, z2 = g["action"].shape, g["noise/z1"].shape[-1], g["noise/z2"].shape[-1]
    sizes = {"batch_size": batch, "model_batch": int(g["model_batch"]), "length": frames - 1, "z1": z1, "z2": z2}
    sizes |= {"filters": w["compressor.1.weight"].shape[0], "hidden": w["actor.0.weight"].shape[0]}
    agent = make_agent(read_config(["method=slac", *(f"slac.{k}={v}" for k, v in sizes.items()), *settings]), actions, fp32())
    for part in ("compressor", "decoder"):
        for number, conv in enumerate(getattr(agent.model, part).convs, 1):
            load_linear(conv, w, f"{part}.{number}")
    for ours, theirs in CONDITIONALS.items():
        load_layers(getattr(agent.model, ours).layers, below(w, f"{theirs}."))
    load_layers(agent.actor, below(w, "actor."))
    for number in (1, 2):
        load_layers(getattr(agent.critic, f"q{number}"), below(w, f"critic{number}."))
        load_layers(getattr(agent.target, f"q{number}"), below(w, f"target{number}."))
    with torch.no_grad():
        agent.log_alpha.copy_(g["log_alpha"])
    return agent


def inputs_of(g):
    """Observations, steps and noise."""
    kind = time_first(g["step_type"])
    steps = Steps(time_first(g["action"]), time_first(g["reward"]), time_first(g["discount"]), kind == 0, kind == 2)
    draw = Draw(g["noise/z1"], g["noise/z2"], g["noise/next_action"], g["noise/actor_action"], g["noise/alpha_action"])
    return Frames.of_images(images(g["image"])), steps, draw
