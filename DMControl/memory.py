"""What a run takes in memory, in bytes, from its settings alone: asked before anything large is built."""

from .agents.sac import images_at_once
from .core.machine import Precision
from .core.method.decoder import Decoder
from .core.run.config import Config
from .methods.strong_augmentation import BANK_SIDE
from .worlds import footage, procedural


def capacity(config: Config) -> int:
    """Transitions that the replay holds: no more than the run makes."""
    return min(config.replay.capacity, max(-(-config.env_steps // config.action_repeat), 1))


def memory(config: Config, action_dim: int, precision: Precision) -> dict[str, int]:
    trained, copied = parameters(config, action_dim)
    image = config.image
    overlay = "strong" in config and config.strong.augment == "overlay"
    images = {"overlay images": 2 * config.strong.images * BANK_SIDE**2 * 3} if overlay else {}  # on the host and on the device
    if precision.device.type == "cpu" and (kept := clips(config)):
        images["clips"] = kept
    return images | {
        "replay": capacity(config) * image.size**2 * 3,
        "networks": 16 * trained + 4 * copied,  # weights, gradients and two moments; copies are weights alone
        "activations": activations(config, precision),
    }


def clips(config: Config) -> int:
    """Frames of videos that stay on the host."""
    videos = [world for world in (config.world, *config.eval.worlds) if world.startswith(("video", "distracting"))]
    filmed = {bool(config.data.davis if world == "distracting_cs" else config.data.video) for world in videos}
    drawn = procedural.KEPT * procedural.LENGTH * procedural.SIDE**2 * 3 if False in filmed else 0
    return drawn + ((footage.KEPT + 2) * footage.BYTES if True in filmed else 0)  # one more, twice, while it is read


def parameters(config: Config, action_dim: int) -> tuple[int, int]:
    """Numbers in trained networks, and in their slow copies."""
    e, image, hidden = config.encoder, config.image, config.sac.hidden
    channels, filters = 3 * image.stack, e.filters
    convolutions = 9 * filters * (channels + filters * (len(e.strides) - 1)) + filters * len(e.strides)
    head = filters * sides(config)[-1] ** 2 * e.dim + 3 * e.dim
    critic = convolutions + head + 2 * mlp(e.dim + action_dim, hidden, 1)
    actor = head + mlp(e.dim, hidden, 2 * action_dim)
    if "mlr" not in config:
        return critic + actor, critic
    m = config.mlr
    out = channels * image.crop**2 if m.target == "pixels" else e.dim
    decoder = Decoder.count(e.dim, m.decoder.depth, m.decoder.width, m.decoder.mlp_ratio)
    projection = (e.dim + 1) * m.hidden + (m.hidden + 1) * e.dim
    prediction = (e.dim + 1) * m.hidden + (m.hidden + 1) * out
    actions = (action_dim + 1) * e.dim if m.action_tokens else 0
    return critic + actor + decoder + projection + prediction + actions, critic + convolutions + head + projection


def activations(config: Config, precision: Precision) -> int:
    """Images in flight with the feature maps that the backward pass reads, the widest layers of the rest, and the windows' pixels."""
    e, image = config.encoder, config.image
    windows = config.mlr.batch_size * config.mlr.window if "mlr" in config else 0
    images = min(images_at_once(config.chunk, precision.device), max(config.sac.batch_size, windows))
    maps = e.filters * sum(side**2 for side in sides(config))
    pixels = 3 * image.stack * image.crop**2
    inputs = images * pixels * (8 + 4 * precision.dtype.itemsize)
    flying = 3 * images * maps * precision.dtype.itemsize
    if "strong" in config or "sgqn" in config:  # two views of each image at once
        inputs, flying = 2 * inputs, 2 * flying
    if "masker" in config:
        per_image = 2 * config.masker.width * (config.masker.depth - 1) * image.stack * image.crop**2
        flying += (2 if "svea" in config else 1) * images * per_image * precision.dtype.itemsize
    rows = 6 * 4 * config.sac.batch_size * config.sac.hidden
    if "mlr" in config:
        d = config.mlr.decoder
        rows += 4 * 2 * windows * (e.dim + d.depth * (8 + 2 * d.mlp_ratio) * d.width)
        rows += windows * image.size**2 if not config.quirks.one_mask_per_batch else 0
        rows += 8 * windows * pixels if config.mlr.target == "pixels" else 0
    return int(inputs + flying + rows)


def sides(config: Config) -> list[int]:
    """Of the feature maps, after each convolution."""
    out, side = [], config.image.crop
    for stride in config.encoder.strides:
        side = max(1, (side - 3) // stride + 1)
        out.append(side)
    return out or [config.image.crop]


def mlp(inputs: int, hidden: int, outputs: int) -> int:
    return (inputs + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * outputs
