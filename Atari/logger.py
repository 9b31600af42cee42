"""Which numbers the users of this benchmark read, under which names, with frames on the x axis."""

from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from . import games
from .core.run.config import flatten
from .core.run.writers import Csv, TensorBoard, strip, video

TRAIN_COLUMNS = (
    "frame", "step", "episode", "episode_return", "episode_length", "hours", "perf/updates_per_second",
    "loss/rl", "loss/mlr", "agent/q", "agent/priority", "grad/network", "grad/decoder", "grad/encoder", "grad/objective", "env/restarts",
    "time/act", "time/env", "time/update", "time/eval", "time/save",
)  # fmt: skip
EVAL_COLUMNS = ("frame", "step", "seed", "episode", "episode_return", "human_normalized", "episode_length", "hours")
FPS = 15  # agent steps per second of a game that runs at 60 frames


LAYOUT = {  # of the Custom Scalars tab
    "return": {
        "evaluation, human-normalised": ["eval/human_normalized"],
        "evaluation": ["eval/episode_return"],
        "training": ["train/episode_return"],
    },
    "losses": {
        "MLR": ["loss/mlr"],
        "Rainbow": ["loss/rl"],
        "gradients": ["grad/network", "grad/decoder"],
        "gradients on the encoder": ["grad/encoder", "grad/objective"],
    },
    "mask and momentum": {"hidden share": ["mlr/mask_ratio"], "distance of the targets": ["mlr/target_distance"]},
    "speed": {
        "updates per second": ["perf/updates_per_second"],
        "seconds per game": ["time/act", "time/env", "time/update", "time/eval", "time/save"],
    },
}
FIRST = ("game", "method", "preset", "name", "seed")  # columns of the HParams tab
SCORES = ("final/episode_return", "final/human_normalized", "final/hours", "eval/human_normalized")
HIDDEN = ("device", "compile", "threads", "runs", "checkpoint", "eval.video")  # no column in the HParams tab: they change no result


class Logger:
    def __init__(self, folder: Path, game: str, config: dict[str, Any], command: str, resumed_at: int | None) -> None:
        self.folder, self.game = folder, game
        self.seed = config["seed"]
        self.train_csv = Csv(folder / "train.csv", TRAIN_COLUMNS, resumed_at, "frame")
        self.eval_csv = Csv(folder / "eval.csv", EVAL_COLUMNS, resumed_at, "frame")
        self.board = TensorBoard(folder, resumed_at)
        if resumed_at is None:
            self.board.text("run/command", f"    {command}")
            self.board.text("run/config", indent(yaml.safe_dump(config, sort_keys=False), "    "))  # four spaces: as it stands
            self.board.layout(LAYOUT)
            self.board.hparams({k: v for k, v in flatten(config) if not k.startswith(HIDDEN)}, FIRST, SCORES)

    def episode(self, frame: int, row: dict[str, float]) -> None:
        """A training game has ended: its raw score, and the means of what the updates measured since the last one."""
        self.train_csv.write({"frame": frame, **row})
        names = {"episode_return": "train/episode_return", "episode_length": "train/episode_length"}
        skip = ("step", "episode", "hours")
        self.board.scalars({names.get(k, k): v for k, v in row.items() if k not in skip}, frame)

    def evaluation(self, frame: int, step: int, hours: float, episodes: list[dict[str, float]]) -> None:
        for number, episode in enumerate(episodes):
            normalized = games.human_normalized(self.game, episode["episode_return"])
            row = {"frame": frame, "step": step, "seed": self.seed, "episode": number, "hours": hours, **episode}
            self.eval_csv.write(row if normalized is None else row | {"human_normalized": normalized})
        scores = [e["episode_return"] for e in episodes]
        scalars = {"eval/episode_return": float(np.mean(scores)), "eval/episode_return_std": float(np.std(scores))}
        normalized = games.human_normalized(self.game, scalars["eval/episode_return"])
        self.board.scalars(scalars if normalized is None else scalars | {"eval/human_normalized": normalized}, frame)

    def pictures(self, frame: int, pictures: dict[str, Tensor]) -> None:
        """One window in rows: the frames, and below them what the masked branch sees."""
        rows = [p.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy() for p in pictures.values()]
        self.board.image("mlr/" + "_and_".join(pictures), strip(rows), frame)

    def gauges(self, frame: int, gauges: dict[str, float]) -> None:
        self.board.scalars(gauges, frame)

    def final(self, frame: int, scores: dict[str, float | None]) -> None:
        """The score of the finished run, to sort and compare runs by in the HParams tab."""
        self.board.scalars({f"final/{k}": v for k, v in scores.items() if v is not None}, frame)

    def animation(self, frame: int, frames: list[np.ndarray]) -> None:
        every = -(-len(frames) // 100)  # at most 100 pictures, so that event files stay small
        self.board.animation("eval/episode", frames[::every], frame, max(1, round(FPS / every)))

    def video(self, name: str, frames: list[np.ndarray]) -> Path:
        path = self.folder / "video" / f"{name}.mp4"
        video(path, frames, FPS)
        return path

    def flush(self) -> None:
        self.board.flush()

    def close(self) -> None:
        self.train_csv.close()
        self.eval_csv.close()
        self.board.close()
