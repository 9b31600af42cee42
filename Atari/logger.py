"""The records of a run on Atari-100k, over frames."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import games
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.logger import Logger as Base
from .distraction import Distraction, source

FPS = 15  # agent steps per second of a game that runs at 60 frames


def columns(distraction: Distraction, data: Config) -> dict[str, Any]:
    """The columns of eval.csv that describe the background of a game."""
    return {"distraction": distraction.name, "strength": distraction.strength, "source": source(distraction, data)}


def tag(distraction: Distraction, data: Config) -> str:
    return f"{distraction}_procedural" if source(distraction, data) == "procedural" else str(distraction)


class Logger(Base):
    AXIS = "frame"
    EVAL_COLUMNS = (
        *("frame", "step", "seed", "episode", "episode_return", "human_normalized", "episode_length", "hours"),
        *("distraction", "strength", "source"),
    )
    RETURNS: ClassVar = {
        "evaluation, human-normalised": ["eval/human_normalized"],
        "evaluation": ["eval/episode_return"],
        "training": ["train/episode_return"],
    }
    FIRST = ("game", "method", "preset", "name", "seed")
    SCORES = ("final/episode_return", "final/human_normalized", "final/hours", "eval/human_normalized")

    def __init__(self, folder: Path, config: dict[str, Any], command: str, agent: Agent) -> None:
        super().__init__(folder, config, command, agent, FPS)
        self.game, self.data = config["game"], Config(config["data"])

    def evaluation(
        self, frame: int, step: int, hours: float, episodes: list[dict[str, float]], distraction: Distraction, elsewhere: bool = False
    ) -> None:
        """Log an evaluation in one distraction. elsewhere: in another one than that of the training."""
        shared = {"frame": frame, "step": step, "seed": self.seed, "hours": hours, **columns(distraction, self.data)}
        for number, episode in enumerate(episodes):
            normalized = games.human_normalized(self.game, episode["episode_return"])
            row = {**shared, "episode": number, **episode}
            self.eval_csv.write(row if normalized is None else row | {"human_normalized": normalized})
        scores = [e["episode_return"] for e in episodes]
        group = f"eval_{tag(distraction, self.data)}" if elsewhere else "eval"
        scalars = {f"{group}/episode_return": float(np.mean(scores)), f"{group}/episode_return_std": float(np.std(scores))}
        normalized = games.human_normalized(self.game, scalars[f"{group}/episode_return"])
        self.tracker.scalars(scalars if normalized is None else scalars | {f"{group}/human_normalized": normalized}, frame)
