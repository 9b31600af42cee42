"""Which numbers the users of this benchmark read, under which names, with env steps on the x axis."""

from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from .core.run.config import Config, flatten
from .core.run.writers import Csv, TensorBoard, strip, video
from .worlds.catalogue import WorldName, is_procedural

TRAIN_COLUMNS = (
    "env_step", "step", "episode", "episode_return", "episode_length", "hours", "perf/updates_per_second",
    "loss/critic", "loss/actor", "loss/alpha", "loss/mlr", "loss/auxiliary", "agent/q", "agent/alpha", "agent/entropy",
    "agent/batch_reward", "agent/mask", "grad/critic", "grad/actor", "grad/front", "grad/auxiliary", "grad/objective", "env/restarts",
    "time/act", "time/env", "time/update", "time/eval", "time/save",
)  # fmt: skip
EVAL_COLUMNS = ("env_step", "step", "seed", "episode", "episode_return", "episode_length", "hours", "world", "intensity", "source")


def columns(world: WorldName, data: Config) -> dict[str, Any]:
    """The columns of eval.csv that say where an episode was played."""
    source = "procedural" if is_procedural(world, data) else "suite" if world.name == "clean" else "footage"
    return {"world": world.name, "intensity": world.intensity, "source": source}


def tag(world: WorldName, data: Config) -> str:
    return f"{world}_procedural" if is_procedural(world, data) else str(world)


LAYOUT = {  # of the Custom Scalars tab
    "return": {
        "evaluation": ["eval/episode_return"],
        "training": ["train/episode_return"],
    },
    "losses": {
        "MLR": ["loss/mlr"],
        "critic": ["loss/critic"],
        "actor and temperature": ["loss/actor", "loss/alpha"],
        "gradient of the objective": ["grad/objective"],
    },
    "mask and momentum": {"hidden share": ["mlr/mask_ratio"], "distance of the targets": ["mlr/target_distance"]},
    "speed": {
        "updates per second": ["perf/updates_per_second"],
        "seconds per episode": ["time/act", "time/env", "time/update", "time/eval", "time/save"],
    },
}
FIRST = ("task", "method", "preset", "name", "seed")  # columns of the HParams tab
SCORES = ("final/episode_return", "final/hours", "eval/episode_return")
HIDDEN = ("device", "compile", "threads", "runs", "checkpoint", "eval.video")  # no column in the HParams tab: they change no result


class Logger:
    def __init__(self, folder: Path, config: dict[str, Any], command: str, resumed_at: int | None, fps: float) -> None:
        self.folder, self.fps = folder, fps
        self.seed, self.data = config["seed"], Config(config["data"])
        self.train_csv = Csv(folder / "train.csv", TRAIN_COLUMNS, resumed_at, "env_step")
        self.eval_csv = Csv(folder / "eval.csv", EVAL_COLUMNS, resumed_at, "env_step")
        self.board = TensorBoard(folder, resumed_at)
        if resumed_at is None:
            self.board.text("run/command", f"    {command}")
            self.board.text("run/config", indent(yaml.safe_dump(config, sort_keys=False), "    "))  # four spaces: as it stands
            self.board.layout(LAYOUT)
            self.board.hparams({k: v for k, v in flatten(config) if not k.startswith(HIDDEN)}, FIRST, SCORES)

    def episode(self, env_step: int, row: dict[str, float]) -> None:
        """A training episode has ended: its return, and the means of what the updates measured since the last one."""
        self.train_csv.write({"env_step": env_step, **row})
        names = {"episode_return": "train/episode_return", "episode_length": "train/episode_length"}
        skip = ("step", "episode", "hours")
        self.board.scalars({names.get(k, k): v for k, v in row.items() if k not in skip}, env_step)

    def evaluation(
        self, env_step: int, step: int, hours: float, episodes: list[dict[str, float]], world: WorldName, elsewhere: bool = False
    ) -> None:
        """One evaluation in one world; elsewhere: not the world of the training."""
        shared = {"env_step": env_step, "step": step, "seed": self.seed, "hours": hours, **columns(world, self.data)}
        for number, episode in enumerate(episodes):
            self.eval_csv.write({**shared, "episode": number, **episode})
        returns = [e["episode_return"] for e in episodes]
        group = f"eval_{tag(world, self.data)}" if elsewhere else "eval"
        scalars = {f"{group}/episode_return": float(np.mean(returns)), f"{group}/episode_return_std": float(np.std(returns))}
        self.board.scalars(scalars, env_step)

    def masks(self, env_step: int, world: WorldName, pictures: dict[str, Tensor]) -> None:
        """Frame, mask and masked frame side by side."""
        if pictures:
            picture = np.concatenate([strip([p.permute(0, 2, 3, 1).cpu().numpy()]) for p in pictures.values()], 1)
            self.board.image(f"masks/{tag(world, self.data)}", picture, env_step)

    def pictures(self, env_step: int, pictures: dict[str, Tensor]) -> None:
        """One window in rows: the frames, and below them what the masked branch sees."""
        if pictures:
            rows = [p.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy() for p in pictures.values()]
            self.board.image("mlr/" + "_and_".join(pictures), strip(rows), env_step)

    def gauges(self, env_step: int, gauges: dict[str, float]) -> None:
        self.board.scalars(gauges, env_step)

    def final(self, env_step: int, scores: dict[str, float | None]) -> None:
        """The score of the finished run, to sort and compare runs by in the HParams tab."""
        self.board.scalars({f"final/{k}": v for k, v in scores.items() if v is not None}, env_step)

    def animation(self, env_step: int, frames: list[np.ndarray]) -> None:
        every = -(-len(frames) // 100)  # at most 100 pictures, so that event files stay small
        self.board.animation("eval/episode", frames[::every], env_step, max(1, round(self.fps / every)))

    def video(self, name: str, frames: list[np.ndarray]) -> Path:
        path = self.folder / "video" / f"{name}.mp4"
        video(path, frames, max(1, round(self.fps)))
        return path

    def flush(self) -> None:
        self.board.flush()

    def close(self) -> None:
        self.train_csv.close()
        self.eval_csv.close()
        self.board.close()
