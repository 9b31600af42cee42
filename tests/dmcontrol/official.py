"""The official code's parameter names, mapped onto this tree's modules. Every size is read from the arrays."""

import numpy as np
import torch
from torch import Tensor, nn

from DMControl.core.machine import Precision
from DMControl.core.method.decoder import Decoder
from DMControl.core.method.encoder import Encoder, Trunk


def fp32() -> Precision:
    return Precision(torch.get_default_device(), torch.float32)


def tensor(array: np.ndarray | Tensor) -> Tensor:
    """A copy on the device of the test."""
    return (array.clone() if isinstance(array, Tensor) else torch.from_numpy(np.asarray(array).copy())).to(torch.get_default_device())


def below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: tensor(v) for k, v in arrays.items() if k.startswith(prefix)}


def make_encoder(weights: dict[str, Tensor], size: int) -> Encoder:
    """Convolutions, fc and LayerNorm as the names and shapes say; the first convolution has stride 2."""
    convs = sorted({int(k.split(".")[1]) for k in weights if k.startswith("convs.")})
    first = weights["convs.0.weight"]
    trunk = Trunk(
        first.shape[1],
        size,
        [weights[f"convs.{i}.weight"].shape[0] for i in convs],
        [weights[f"convs.{i}.weight"].shape[2] for i in convs],
        [2] + [1] * (len(convs) - 1),
        fp32(),
    )
    encoder = Encoder(trunk, weights["fc.weight"].shape[0])
    load_trunk(trunk, weights)
    load_head(encoder.head, weights, trunk)
    return encoder


def load_trunk(trunk: Trunk, weights: dict[str, Tensor]) -> None:
    trunk.convs.load_state_dict({k[len("convs.") :]: v for k, v in weights.items() if k.startswith("convs.")})


def load_head(head: nn.Module, weights: dict[str, Tensor], trunk: Trunk) -> None:
    head.fc.load_state_dict({"weight": to_ours(weights["fc.weight"], trunk), "bias": weights["fc.bias"]})
    head.ln.load_state_dict({"weight": weights["ln.weight"], "bias": weights["ln.bias"]})


def to_ours(weight: Tensor, trunk: Trunk) -> Tensor:
    """(d, C*h*w) of a channel-major flatten -> (d, h*w*C), the order in which our head reads the map."""
    d = weight.shape[0]
    return weight.view(d, trunk.channels, trunk.side, trunk.side).permute(0, 2, 3, 1).reshape(d, -1)


def make_decoder(weights: dict[str, Tensor], window: int) -> Decoder:
    depth = len({k.split(".")[0] for k in weights})
    width = weights["0.norm1.weight"].shape[0]
    ratio = weights["0.mlp.fc1.weight"].shape[0] / width
    decoder = Decoder(width, window, depth, width, 1, ratio, False, fp32())
    renamed = {k.replace("attn.", "").replace("mlp.", ""): v for k, v in weights.items()}
    decoder.blocks.load_state_dict(renamed)
    return decoder


def load_mlp(module: nn.Sequential, weights: dict[str, Tensor]) -> nn.Sequential:
    module.load_state_dict(weights)
    return module


def make_mlp(weights: dict[str, Tensor]) -> nn.Sequential:
    """Linear layers with a ReLU between them, as the keys 0, 2, 4, ... say."""
    numbers = sorted({int(k.split(".")[0]) for k in weights})
    layers: list[nn.Module] = []
    for number in numbers:
        out, inputs = weights[f"{number}.weight"].shape
        layers += [nn.Linear(inputs, out), nn.ReLU()]
    return load_mlp(nn.Sequential(*layers[:-1]), weights)


def interleave(tokens: Tensor) -> Tensor:
    """Our [s_0..s_K, a_0..a_K] in the official order s_0, a_0, s_1, a_1, ..."""
    states, actions = tokens.chunk(2, 1)
    return torch.stack([states, actions], 2).flatten(1, 2)


def norm(parameters) -> Tensor:
    grads = [p.grad for p in parameters if p.grad is not None]
    return torch.cat([g.flatten() for g in grads]).norm()


def assert_close(ours: Tensor, theirs, relative: float) -> None:
    """Equal to `relative` of the size of the array: of each entry, and of the largest one where entries are near 0."""
    theirs = tensor(theirs).to(ours)
    torch.testing.assert_close(ours.detach(), theirs, rtol=relative, atol=relative * float(theirs.abs().max()) * 0.1 + 1e-9)


def assert_moved(ours: Tensor, before, after) -> None:
    """What a step changed, to a hundredth of its largest entry."""
    moved, wanted = ours.detach() - tensor(before), tensor(after) - tensor(before)
    assert (moved - wanted).abs().max() <= 0.01 * wanted.abs().max()
