"""What a run takes in memory, in bytes, from its settings alone: asked before anything large is built."""

from .core.machine import Precision
from .core.method.decoder import Decoder
from .core.run.config import Config


def capacity(config: Config) -> int:
    """Transitions that the replay holds: no more than the run makes."""
    return min(config.replay.capacity, config.steps)


def memory(config: Config, n_actions: int, precision: Precision) -> dict[str, int]:
    trained, copied = parameters(config, n_actions)
    return {
        "replay": capacity(config) * config.env.size**2,
        "networks": 16 * trained + 4 * copied,  # weights, gradients and two moments; copies are weights alone
        "activations": activations(config, precision),
    }


def parameters(config: Config, n_actions: int) -> tuple[int, int]:
    """Numbers in trained networks, and in their copies."""
    r, latent = config.rainbow, features(config)[-1]
    convolutions, channels = 0, config.env.stack
    for filters, kernel in zip(config.encoder.filters, config.encoder.kernels, strict=False):
        convolutions += filters * channels * kernel**2 + filters
        channels = filters
    first = 2 * (latent + 1) * r.hidden
    network = convolutions + 2 * (first + (r.hidden + 1) * r.atoms * (1 + n_actions))  # means and sigmas
    if "mlr" not in config:
        return network, network
    m = config.mlr
    decoder = Decoder.count(latent, m.decoder.depth, m.decoder.width or latent, m.decoder.mlp_ratio)
    out = config.env.stack * config.env.size**2 if m.target == "pixels" else 2 * r.hidden
    own = decoder + (2 * r.hidden + 1) * out + ((n_actions + 1) * latent if m.action_tokens else 0)
    return network + own, network + convolutions + first


def activations(config: Config, precision: Precision) -> int:
    """Images in flight with what the backward pass reads of them, and the tokens of the decoder with what its blocks keep."""
    batch, size = config.rainbow.batch_size, precision.dtype.itemsize
    windows = batch * config.mlr.window if "mlr" in config else 0
    together = min(config.mlr.chunk or batch, batch) * config.mlr.window if "mlr" in config else 0
    images = max(together, 3 * batch)
    pixels = config.env.stack * config.env.size**2
    flying = images * (pixels * (12 + 2 * size) + 3 * size * sum(features(config)))
    rows = 4 * batch * config.rainbow.hidden * 8 + windows * config.env.size**2
    if "mlr" in config:
        d, latent = config.mlr.decoder, features(config)[-1]
        rows += 4 * 2 * together * (4 * latent + d.depth * (8 + 2 * d.mlp_ratio) * (d.width or latent))
        rows += 8 * together * pixels if config.mlr.target == "pixels" else 0
    return int(flying + rows)


def features(config: Config) -> list[int]:
    """Numbers in the feature maps of an image, after each convolution."""
    out, side, e = [], config.env.size, config.encoder
    for filters, kernel, stride in zip(e.filters, e.kernels, e.strides, strict=False):
        side = max(1, (side - kernel) // stride + 1)
        out.append(filters * side**2)
    return out or [config.env.stack * side**2]
