"""The records of a run: CSV files, videos, and what its tracker shows."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .agent import Agent
from .trackers import Header, make
from .writers import Csv, strip, video

TIMES = ("time/act", "time/env", "time/update", "time/eval", "time/save")


class Logger:
    """Base of a tree's Logger, which adds the names of columns, charts and scores."""

    AXIS: str  # the column of simulator steps
    EVAL_COLUMNS: tuple[str, ...]
    RETURNS: ClassVar[dict[str, list[str]]]  # {chart: scalars} of the returns
    FIRST: tuple[str, ...]  # the first settings in a table of runs
    SCORES: tuple[str, ...]  # the scalars by which runs are compared

    def __init__(self, folder: Path, config: dict[str, Any], command: str, agent: Agent, fps: float) -> None:
        self.folder, self.config, self.command, self.fps, self.seed = folder, config, command, fps, config["seed"]
        episode = ("step", "episode", "episode_return", "episode_length", "hours", "perf/updates_per_second")
        self.columns = (self.AXIS, *episode, *agent.columns, "env/restarts", *TIMES)
        if len(self.columns) > len(set(self.columns)):
            raise ValueError(f"{self.columns}: a column is named twice")
        self.diagnostics = agent.diagnostics

    def open(self, tracker: str, resumed_at: int | None) -> None:
        self.train_csv = Csv(self.folder / "train.csv", self.columns, resumed_at, self.AXIS)
        self.eval_csv = Csv(self.folder / "eval.csv", self.EVAL_COLUMNS, resumed_at, self.AXIS)
        header = Header(self.config, self.command, self.charts(), self.FIRST, self.SCORES)
        self.tracker = make(tracker, self.folder, header, self.AXIS, resumed_at)

    def charts(self) -> dict[str, dict[str, list[str]]]:
        """Groups of charts, as in TensorBoard's Custom Scalars tab."""
        losses = {name.removeprefix("loss/"): [name] for name in self.columns if name.startswith("loss/")}
        gradients = {"gradients": [name for name in self.columns if name.startswith("grad/")]}
        own = [name for name in self.columns if name.startswith(f"{self.config['method']}/")]
        diagnostics = {name: [name] for name in (*own, *self.diagnostics)}
        speed = {"updates per second": ["perf/updates_per_second"], "seconds per episode": list(TIMES)}
        groups = {"return": self.RETURNS, "losses": losses | gradients, "diagnostics": diagnostics, "speed": speed}
        return {group: charts for group, charts in groups.items() if charts}

    def episode(self, at: int, row: dict[str, float]) -> None:
        """Log a training episode."""
        self.train_csv.write({self.AXIS: at, **row})
        names = {"episode_return": "train/episode_return", "episode_length": "train/episode_length"}
        skip = ("step", "episode", "hours")
        self.tracker.scalars({names.get(k, k): v for k, v in row.items() if k not in skip}, at)

    def diagnosis(self, at: int, numbers: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Log the agent's diagnostics at an evaluation. Pictures (N, C, H, W) become rows of one image."""
        unknown = set(numbers) - set(self.diagnostics)
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: add the names from `diagnose` to `diagnostics`")
        self.tracker.scalars(numbers, at)
        if pictures:
            rows = [p.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy() for p in pictures.values()]
            self.tracker.image(f"{self.config['method']}/{'_and_'.join(pictures)}", strip(rows), at)

    def masks(self, at: int, name: str, pictures: dict[str, Tensor]) -> None:
        """Frame, mask and masked frame side by side. name: where the agent plays."""
        if pictures:
            picture = np.concatenate([strip([p.permute(0, 2, 3, 1).cpu().numpy()]) for p in pictures.values()], 1)
            self.tracker.image(f"masks/{name}", picture, at)

    def final(self, at: int, scores: dict[str, float | None]) -> None:
        """Log the scores of the finished run, which the HParams tab compares."""
        self.tracker.scalars({f"final/{k}": v for k, v in scores.items() if v is not None}, at)

    def animation(self, at: int, frames: list[np.ndarray]) -> None:
        every = -(-len(frames) // 100)  # at most 100 frames keep the event files small
        self.tracker.animation("eval/episode", frames[::every], at, max(1, round(self.fps / every)))

    def video(self, name: str, frames: list[np.ndarray]) -> Path:
        path = self.folder / "video" / f"{name}.mp4"
        video(path, frames, max(1, round(self.fps)))
        return path

    def flush(self) -> None:
        self.tracker.flush()

    def close(self) -> None:
        self.train_csv.close()
        self.eval_csv.close()
        self.tracker.close()
