"""The official names of Dreamer's and PlaNet's parameters, mapped onto our modules. Every size is read from the arrays."""

import torch
from official import below, fp32, tensor
from torch import nn
from torch.nn import functional as F

from DMControl.agents.rssm import RSSM, Decoder, ResetBeforeGRU, make_encoder
from DMControl.core.method.frames import Frames
from DMControl.methods import make_agent
from DMControl.replay import Chunk
from DMControl.settings import read_config


def time_first(array):
    """(B, T, ...) -> (T, B, ...)"""
    return tensor(array).transpose(0, 1)


def images(array):
    """(B, T, H, W, C) uint8 -> (T * B, C, H, W)"""
    return time_first(array).flatten(0, 1).permute(0, 3, 1, 2)


def load_linear(layer, weights, name, *more):
    """One layer; with more names, their outputs stacked."""
    names = (name, *more)
    layer.load_state_dict({k: torch.cat([weights[f"{n}.{k}"] for n in names]) for k in ("weight", "bias")})


def load_mlp(module, weights):
    """Hidden layers 0, 1, ... and out."""
    layers = [layer for layer in module if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers):
        load_linear(layer, weights, "out" if number == len(layers) - 1 else str(number))
    return module


def encoder_of(weights):
    trunk = make_encoder(weights["1.weight"].shape[0], fp32())
    for number, conv in enumerate(trunk.convs, 1):
        load_linear(conv, weights, str(number))
    return trunk


def decoder_of(weights):
    decoder = Decoder(weights["1.weight"].shape[1], weights["1.weight"].shape[0] // 32, fp32())
    for number, layer in enumerate((decoder.fc, *decoder.convs), 1):
        load_linear(layer, weights, str(number))
    return decoder


def rssm_of_dreamer(weights, embed):
    deter, inputs = weights["img1.weight"].shape
    stoch = weights["img3.weight"].shape[0] // 2
    rssm = RSSM(inputs - stoch, embed, stoch, deter, F.elu, nn.GRUCell)
    rssm.cell.load_state_dict(below(weights, "gru."))
    names = {"enter": "img1", "prior_hidden": "img2", "prior_out": "img3", "posterior_hidden": "obs1", "posterior_out": "obs2"}
    for ours, theirs in names.items():
        load_linear(getattr(rssm, ours), weights, theirs)
    return rssm


def rssm_of_planet(weights, embed):
    deter, inputs = weights["transition.in.weight"].shape
    stoch = weights["transition.mean.weight"].shape[0]
    rssm = RSSM(inputs - stoch, embed, stoch, deter, torch.relu, ResetBeforeGRU)
    rssm.cell.gates.load_state_dict({"weight": weights["gru.w_ru"], "bias": weights["gru.b_ru"]})
    rssm.cell.candidate.load_state_dict({"weight": weights["gru.w_c"], "bias": weights["gru.b_c"]})
    load_linear(rssm.enter, weights, "transition.in")
    load_linear(rssm.prior_hidden, weights, "transition.hidden")
    load_linear(rssm.prior_out, weights, "transition.mean", "transition.std")
    load_linear(rssm.posterior_hidden, weights, "posterior.hidden")
    load_linear(rssm.posterior_out, weights, "posterior.mean", "posterior.std")
    return rssm


def dreamer_of(g, *settings):
    """A Dreamer of the arrays' sizes, with their weights."""
    w = below(g, "w/")
    (batch, length, actions), (horizon, stoch) = g["action"].shape, g["noise/imag_state"].shape
    sizes = {"batch_size": batch, "length": length, "horizon": horizon, "stoch": stoch, "filters": w["encoder.1.weight"].shape[0]}
    sizes |= {"deter": w["rssm.img1.weight"].shape[0], "hidden": w["actor.0.weight"].shape[0]}
    agent = make_agent(read_config(["method=dreamer", *(f"dreamer.{k}={v}" for k, v in sizes.items()), *settings]), actions, fp32())
    parts = {"encoder": encoder_of, "decoder": decoder_of, "rssm": lambda weights: rssm_of_dreamer(weights, g["embed"].shape[-1])}
    for name, make in parts.items():
        agent.modules[name].load_state_dict(make(below(w, f"{name}.")).state_dict())
    for name in ("reward", "value", "actor"):
        load_mlp(agent.modules[name], below(w, f"{name}."))
    return agent


def chunk_of(g):
    return Chunk(Frames.of_images(images(g["image"])), time_first(g["action"]), time_first(g["reward"]))


def gradients(modules, names):
    """{official name: our gradient}. names: official name of a parameter -> (module, path of the parameter)."""
    return {name: dict(modules[module].named_parameters())[path].grad for name, (module, path) in names.items()}


def planet_of(g, *settings):
    """A PlaNet of the arrays' sizes, with their weights."""
    w = below(g, "w/")
    (batch, length, actions), (iterations, candidates, horizon, _) = g["action"].shape, g["plan/action_noise"].shape
    sizes = {"batch_size": batch, "length": length, "horizon": horizon, "candidates": candidates, "iterations": iterations}
    sizes |= {"stoch": g["noise/post"].shape[-1], "filters": w["encoder.1.weight"].shape[0], "elites": int(g["plan/topk"])}
    sizes |= {"deter": w["transition.in.weight"].shape[0], "hidden": w["reward.0.weight"].shape[0]}
    agent = make_agent(read_config(["method=planet", *(f"planet.{k}={v}" for k, v in sizes.items()), *settings]), actions, fp32())
    agent.encoder.convs.load_state_dict(encoder_of(below(w, "encoder.")).convs.state_dict())
    agent.decoder.load_state_dict(decoder_of(below(w, "decoder.")).state_dict())
    agent.rssm.load_state_dict(rssm_of_planet(w, g["embed"].shape[-1]).state_dict())
    load_mlp(agent.reward, below(w, "reward."))
    return agent
