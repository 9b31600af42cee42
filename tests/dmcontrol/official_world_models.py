"""The official names of Dreamer's and PlaNet's parameters, mapped onto our modules. Every size is read from the arrays."""

import torch
from official import below, fp32, tensor
from torch import nn
from torch.nn import functional as F

from DMControl.agents.rssm import RSSM, Decoder, ResetBeforeGRU, make_encoder


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
