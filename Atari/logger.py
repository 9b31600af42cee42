"""The records of a run on Atari-100k, over frames."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import games
from .core.run.agent import Agent
from .core.run.logger import Logger as Base

FPS = 15  # agent steps per second of a game that runs at 60 frames


class Logger(Base):
    AXIS = "frame"
    EVAL_COLUMNS = ("frame", "step", "seed", "episode", "episode_return", "human_normalized", "episode_length", "hours")
    RETURNS: ClassVar = {
        "evaluation, human-normalised": ["eval/human_normalized"],
        "evaluation": ["eval/episode_return"],
        "training": ["train/episode_return"],
    }
    FIRST = ("game", "method", "preset", "name", "seed")
    SCORES = ("final/episode_return", "final/human_normalized", "final/hours", "eval/human_normalized")

    def __init__(self, folder: Path, config: dict[str, Any], command: str, agent: Agent) -> None:
        super().__init__(folder, config, command, agent, FPS)
        self.game = config["game"]

    def evaluation(self, frame: int, step: int, hours: float, episodes: list[dict[str, float]]) -> None:
        for number, episode in enumerate(episodes):
            normalized = games.human_normalized(self.game, episode["episode_return"])
            row = {"frame": frame, "step": step, "seed": self.seed, "episode": number, "hours": hours, **episode}
            self.eval_csv.write(row if normalized is None else row | {"human_normalized": normalized})
        scores = [e["episode_return"] for e in episodes]
        scalars = {"eval/episode_return": float(np.mean(scores)), "eval/episode_return_std": float(np.std(scores))}
        normalized = games.human_normalized(self.game, scalars["eval/episode_return"])
        self.board.scalars(scalars if normalized is None else scalars | {"eval/human_normalized": normalized}, frame)
