"""The memory that a run needs, in bytes, computed from its settings before anything large is built."""

import copy

from .agents.chunks import images_at_once
from .core.machine import Precision
from .core.method import footage
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.memory import META, agent_memory
from .methods import make_agent
from .methods.strong_augmentation import BANK_SIDE
from .replay import Replay
from .worlds import procedural


def capacity(config: Config) -> int:
    """Size of the replay in transitions: at most the number that the run makes."""
    return min(config.replay.capacity, max(-(-config.env_steps // config.action_repeat), 1))


def memory(config: Config, action_dim: int, precision: Precision) -> dict[str, int]:
    image = config.image
    overlay = "strong_augmentation" in config and config.strong_augmentation.kind == "overlay"
    images = {"overlay images": 2 * config.strong_augmentation.images * BANK_SIDE**2 * 3} if overlay else {}  # on host and device
    if precision.device.type == "cpu" and (kept := clips(config)):
        images["clips"] = kept
    small = sketch(config, precision)

    def replay(agent: Agent) -> Replay:
        empty = Replay(1, 1, image.stack, image.size, action_dim, META, agent.generator)
        empty.added = max(config.train.random_steps, agent.window + 2)
        empty.newest_of_age = list(range(empty.added))
        return empty

    networks = agent_memory(lambda on_meta: make_agent(small, action_dim, on_meta), replay, precision)
    return images | {"replay": capacity(config) * image.size**2 * 3} | networks


def sketch(config: Config, precision: Precision) -> Config:
    """Settings of an agent with the same memory, without the overlay images, which take long to draw."""
    small = copy.deepcopy(config)
    if "chunk" in small:
        small["chunk"] = images_at_once(config.chunk, precision.device)
    if "strong_augmentation" in small:
        small["strong_augmentation"]["images"] = 1
    return small


def clips(config: Config) -> int:
    """Bytes of video frames that stay in RAM."""
    videos = [world for world in (config.world, *config.eval.worlds) if world.startswith(("video", "distracting"))]
    filmed = {bool(config.data.davis if world == "distracting_cs" else config.data.video) for world in videos}
    drawn = procedural.KEPT * procedural.LENGTH * procedural.SIDE**2 * 3 if False in filmed else 0
    return drawn + ((footage.KEPT + 2) * footage.BYTES if True in filmed else 0)  # while one more is read, it is in memory twice
