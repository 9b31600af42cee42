"""The memory that a run needs, in bytes, computed from its settings before anything large is built."""

from .core.machine import Precision
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.memory import META, agent_memory
from .methods import make_agent
from .replay import Replay


def capacity(config: Config) -> int:
    """Size of the replay in transitions: at most the number that the run makes."""
    return min(config.replay.capacity, config.steps)


def memory(config: Config, n_actions: int, precision: Precision) -> dict[str, int]:
    env, n_step = config.env, config.rainbow.n_step

    def replay(agent: Agent) -> Replay:
        window = agent.window or 1
        enough = window + n_step + 2
        empty = Replay(
            enough, size=env.size, stack=env.stack, window=window, n_step=n_step, discount=config.rainbow.discount,
            alpha=config.replay.alpha, device=META, generator=agent.generator,
        )  # fmt: skip
        empty.added = enough
        return empty

    networks = agent_memory(lambda on_meta: make_agent(config, n_actions, on_meta), replay, precision)
    return {"replay": capacity(config) * env.size**2} | networks
