"""The memory that a run needs, in bytes, computed from its settings before anything large is built."""

import copy

import torch

from .core.machine import Precision
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.memory import META, agent_memory
from .distraction import memory as pictures_memory
from .methods import make_agent
from .methods.madi import BANK_SIDE
from .replay import Replay


def capacity(config: Config) -> int:
    """Size of the replay in transitions: at most the number that the run makes."""
    return min(config.replay.capacity, config.steps)


def new_replay(config: Config, slots: int, window: int, agent: Agent, device: torch.device | None = None) -> Replay:
    """An empty replay for `slots` transitions."""
    quirks, replay = config.quirks, config.replay
    return Replay(
        slots,
        size=config.env.size,
        stack=config.env.stack,
        window=window,
        n_step=config.rainbow.n_step,
        discount=config.rainbow.discount,
        alpha=replay.alpha,
        device=device or agent.generator.device,
        generator=agent.generator,
        done_n_first_step=quirks.done_n_first_step,
        done_n_late=quirks.done_n_late,
        weight_eps=replay.weight_eps,
        enter_at_largest=replay.enter_at == "largest",
    )


def memory(config: Config, n_actions: int, precision: Precision) -> dict[str, int]:
    small = sketch(config)
    images = {}
    if small is not config:  # on host and device, and in colour while they are drawn
        images["overlay images"] = (2 + 3) * config.strong_augmentation.images * BANK_SIDE**2
    if precision.device.type == "cpu" and (kept := pictures_memory(config)):
        images["videos"] = kept

    def replay(agent: Agent) -> Replay:
        window = agent.window or 1
        enough = window + config.rainbow.n_step + 2
        empty = new_replay(config, enough, window, agent, META)
        empty.added = enough
        return empty

    networks = agent_memory(lambda on_meta: make_agent(small, n_actions, on_meta), replay, precision)
    return images | {"replay": capacity(config) * config.env.size**2} | networks


def sketch(config: Config) -> Config:
    """Settings of an agent with the same memory, without the overlay images, which take long to draw."""
    if "strong_augmentation" not in config or config.strong_augmentation.kind != "overlay":
        return config
    small = copy.deepcopy(config)
    small["strong_augmentation"]["images"] = 1
    return small
