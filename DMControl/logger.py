"""The records of a run on the control suite, over env steps."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.logger import Logger as Base
from .worlds.catalogue import WorldName, is_procedural


def columns(world: WorldName, data: Config) -> dict[str, Any]:
    """The columns of eval.csv that describe the world of an episode."""
    source = "procedural" if is_procedural(world, data) else "suite" if world.name == "clean" else "footage"
    return {"world": world.name, "intensity": world.intensity, "source": source}


def tag(world: WorldName, data: Config) -> str:
    return f"{world}_procedural" if is_procedural(world, data) else str(world)


class Logger(Base):
    AXIS = "env_step"
    EVAL_COLUMNS = ("env_step", "step", "seed", "episode", "episode_return", "episode_length", "hours", "world", "intensity", "source")
    RETURNS: ClassVar = {"evaluation": ["eval/episode_return"], "training": ["train/episode_return"]}
    FIRST = ("task", "method", "preset", "name", "seed")
    SCORES = ("final/episode_return", "final/hours", "eval/episode_return")

    def __init__(self, folder: Path, config: dict[str, Any], command: str, agent: Agent, fps: float) -> None:
        super().__init__(folder, config, command, agent, fps)
        self.data = Config(config["data"])

    def evaluation(
        self, env_step: int, step: int, hours: float, episodes: list[dict[str, float]], world: WorldName, elsewhere: bool = False
    ) -> None:
        """Log an evaluation in one world. elsewhere: in a world other than that of the training."""
        shared = {"env_step": env_step, "step": step, "seed": self.seed, "hours": hours, **columns(world, self.data)}
        for number, episode in enumerate(episodes):
            self.eval_csv.write({**shared, "episode": number, **episode})
        returns = [e["episode_return"] for e in episodes]
        group = f"eval_{tag(world, self.data)}" if elsewhere else "eval"
        scalars = {f"{group}/episode_return": float(np.mean(returns)), f"{group}/episode_return_std": float(np.std(returns))}
        self.tracker.scalars(scalars, env_step)
