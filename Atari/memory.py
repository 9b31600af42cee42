"""The memory that a run needs, in bytes, computed from its settings before anything large is built."""

import torch

from .core.machine import Precision
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.memory import META, agent_memory
from .methods import make_agent
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
    def replay(agent: Agent) -> Replay:
        window = agent.window or 1
        enough = window + config.rainbow.n_step + 2
        empty = new_replay(config, enough, window, agent, META)
        empty.added = enough
        return empty

    networks = agent_memory(lambda on_meta: make_agent(config, n_actions, on_meta), replay, precision)
    return {"replay": capacity(config) * config.env.size**2} | networks
