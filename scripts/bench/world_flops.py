"""Floating-point work of an update of the agents with a world model: multiply-adds of convolutions and matrix products."""

from typing import Any

FORWARD, INPUTS, ALL = 1, 2, 3  # passes: forward; and back to the inputs; and to the weights as well


def world_products(config: Any, actions: int) -> float | None:
    """Of a mean update; None for other methods. SLAC: after the updates of its model alone."""
    if "dreamer" in config:
        return dreamer(config.dreamer, actions)
    if "planet" in config:
        own = config.planet
        return own.batch_size * own.length * model(own, actions, reward_layers=3)
    return slac(config.slac, actions) if "slac" in config else None


def layers(inputs: int, hidden: int, count: int, outputs: int) -> int:
    return inputs * hidden + (count - 1) * hidden**2 + hidden * outputs


def pictures(c: int, features: int) -> tuple[int, int, int]:
    """The encoder's first convolution, its others, and the decoder, for one image. c: filters."""
    first = 31**2 * c * 3 * 16
    rest = 16 * (14**2 * 2 * c * c + 6**2 * 4 * c * 2 * c + 2**2 * 8 * c * 4 * c)
    decoder = features * 32 * c + 25 * (32 * c * 4 * c + 5**2 * 4 * c * 2 * c) + 36 * (13**2 * 2 * c * c + 30**2 * c * 3)
    return first, rest, decoder


def prior(own: Any, actions: int) -> int:
    """A step of the latent state without a picture."""
    return (own.stoch + actions) * own.deter + 7 * own.deter**2 + own.deter * 2 * own.stoch


def model(own: Any, actions: int, reward_layers: int) -> int:
    """Forwards and backwards through the model, for one observation. The first convolution has no gradient of its input."""
    features = own.stoch + own.deter
    first, rest, decoder = pictures(own.filters, features)
    posterior = (own.deter + 32 * own.filters) * own.deter + own.deter * 2 * own.stoch
    reward = layers(features, own.hidden, reward_layers, 1)
    return ALL * (first + rest + decoder + prior(own, actions) + posterior + reward) - first


def dreamer(own: Any, actions: int) -> int:
    n, features = own.batch_size * own.length, own.stoch + own.deter
    actor, value = layers(features, own.hidden, 4, 2 * actions), layers(features, own.hidden, 3, 1)
    reward = layers(features, own.hidden, 2, 1)
    imagined = ALL * actor + INPUTS * (prior(own, actions) + reward) + (INPUTS + 2) * value  # the value learns and passes the gradient on
    return n * (model(own, actions, 2) + own.horizon * imagined)


def slac(own: Any, actions: int) -> int:
    c, latent, frames = own.filters, own.z1 + own.z2, own.length + 1
    width = 8 * c
    inner = 9 * (16**2 * 2 * c * c + 8**2 * 4 * c * 2 * c + 4**2 * 8 * c * 4 * c)  # compressor and decoder mirror each other
    outer = 32**2 * c * 3 * 25
    compressor, decoder = outer + inner + width**2 * 16, latent * width * 16 + inner + outer
    z1 = layers(width + own.z2 + actions, width, 2, 2 * own.z1)
    z2 = layers(own.z1 + own.z2 + actions, width, 2, 2 * own.z2)
    told = layers(own.z2 + actions, width, 2, 2 * own.z1) + layers(2 * latent + actions, width, 2, 2) + decoder
    seen = frames * (compressor + z1 + z2)
    learnt = ALL * (seen + frames * told) - frames * outer
    actor = layers(own.length * width + (own.length - 1) * actions, own.hidden, 2, 2 * actions)
    critics = 2 * layers(latent + actions, own.hidden, 2, 1)
    sac = (2 * FORWARD + ALL) * actor + (FORWARD + ALL + INPUTS) * critics
    return own.model_batch * learnt + (own.batch_size - own.model_batch) * seen + own.batch_size * sac
