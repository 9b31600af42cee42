"""Train one agent on one game.

python -m Atari.train game=pong method=mlr preset=paper seed=1 device=cuda
python -m Atari.train --multirun game=pong,alien seed=1,2,3 hydra/launcher=submitit_slurm

Every key, with its meaning and default: configs/atari/config.yaml and configs/atari/method/. The same command again goes
on with a run that was stopped.
"""

import shlex
import sys

import numpy as np
import torch

from . import games
from .core import machine
from .core.errors import UserError, run_main
from .core.method.reconstruction import GAUGED
from .core.run import multirun
from .core.run.config import Config
from .core.run.folder import RunFolder
from .core.run.progress import Bar, Every, Until
from .core.run.trainer import Run, require_disk
from .env import TRAIN, Env
from .evaluate import evaluate, make_env
from .logger import Logger
from .memory import capacity, memory
from .methods import make_agent, window_of
from .replay import Replay
from .settings import CONFIGS, read_config, run_path


def make_replay(config: Config, device: torch.device, generator: torch.Generator) -> Replay:
    return Replay(
        capacity(config),
        size=config.env.size,
        stack=config.env.stack,
        window=window_of(config),
        n_step=config.rainbow.n_step,
        discount=config.rainbow.discount,
        alpha=config.replay.alpha,
        device=device,
        generator=generator,
    )


class Trainer(Run):
    ACTION = np.int64

    def __init__(self, config: Config, command: str) -> None:
        super().__init__(config)
        rainbow, path = config.rainbow, run_path(config)
        self.env = self.make_env()
        need = memory(config, self.env.n_actions, self.precision)
        machine.require(self.device, need)
        require_disk(config.runs, path, need["replay"], need["networks"])
        self.agent = make_agent(config, self.env.n_actions, self.precision)
        self.replay = make_replay(config, self.device, self.agent.generator)
        if rainbow.random_steps <= self.replay.reserve:
            raise UserError(f"rainbow.random_steps={rainbow.random_steps} must exceed 1 + n_step + mlr.window = {self.replay.reserve}")
        self.pictures: list = []
        resumed = self.open(path)
        self.folder.begin(self.precision, self.step)
        self.logger = Logger(self.folder.path, config.game, self.folder.config, command, self.frame if resumed else None)
        self.bar = Bar(config.steps, self.step, "step")
        print(f"run: {self.folder.path}" + (f" (resumed at {self.frame:,} frames)" if resumed else ""))
        print(f"machine: {machine.describe(self.device)}, {str(self.precision.dtype)[6:]}")
        print(self.replay, flush=True)

    def make_env(self) -> Env:
        return make_env(self.config, self.config.seed, TRAIN)

    @property
    def frame(self) -> int:
        return self.step * self.config.env.frame_skip

    def train(self) -> int:
        """Act, store, update, evaluate, log, save."""
        config, rainbow = self.config, self.config.rainbow
        until, update_due, save_due = Until(config.steps), Every(rainbow.update_every), Every(config.checkpoint.every)
        if self.env.over:
            self.replay.start(self.reset())
        if self.evaluation_due():  # at step 0, or where a stop cut an evaluation off
            self.evaluate()
        while until(self.step) and not self.stop.signal:
            with self.timers("act"):
                action = self.choose()
            self.stop_if_not_finite()
            with self.timers("env"):
                result = self.advance(action)
            self.replay.add(action, result)
            self.step += 1
            if self.step > rainbow.random_steps and update_due(self.step):
                with self.timers("update"):
                    for _ in range(rainbow.updates_per_step):
                        self.updated(self.agent.update(self.replay, self.step))
                    machine.wait(self.device)  # the next action would; it is the update's time
            if result.over:
                self.end_episode()
            if self.evaluation_due():
                self.evaluate()
            if save_due(self.step) and until(self.step):
                self.save()
            self.bar.advance(1)
        self.save()
        self.bar.close()
        finished = not until(self.step) and self.evaluated_at == self.step
        if finished:
            self.finish()
        self.logger.close()
        print(f"{'finished' if finished else 'stopped'} at {self.frame:,} frames after {self.hours:.2f} h: {self.folder.path}")
        return 0 if finished else self.stop.exit_code

    def act(self) -> np.ndarray:
        return self.agent.act(self.replay.newest(), epsilon=1.0 if self.step <= self.config.rainbow.random_steps else 0.0)[0]

    def end_episode(self) -> None:
        """A game is over: its raw score."""
        self.stop_if_not_finite()
        times = self.timers.read()
        speed = self.row_updates / times["time/update"] if times.get("time/update") else 0.0
        row = {
            "step": self.step,
            "episode": self.episode,
            "episode_return": self.env.score,
            "episode_length": self.env.steps,
            "hours": self.hours,
            "perf/updates_per_second": speed,
            "env/restarts": self.restarts,
            **self.averages.read(),
            **times,
        }
        self.logger.episode(self.frame, row)
        self.bar.advance(0, episode_return=f"{self.env.score:.1f}", updates_per_s=f"{speed:.1f}")
        self.episode, self.row_updates = self.episode + 1, 0
        self.replay.start(self.reset())

    def evaluation_due(self) -> bool:
        due = self.step == 0 or Every(self.config.eval.every)(self.step) or self.step >= self.config.steps
        return due and self.evaluated_at != self.step

    def evaluate(self) -> None:
        """Full games of their own; a stop in between leaves no trace, and they are played after the resume."""
        self.stop_if_not_finite()
        settings = self.config.eval
        episodes = settings.final_episodes if self.step >= self.config.steps else settings.episodes

        with self.timers("eval"):
            outcome = self.persist(  # its games are made anew each time
                lambda: evaluate(self.agent, self.config, episodes, self.config.seed, film=settings.video, stop=self.stop.asked),
                lambda: None,
            )
        if outcome is None:
            return
        self.final, self.pictures = outcome
        self.logger.evaluation(self.frame, self.step, self.hours, self.final)
        if self.pictures:
            self.logger.animation(self.frame, self.pictures)
        objective, generator = self.agent.objective, self.agent.generator
        if objective is not None and len(self.replay) > 0:
            stream = generator.get_state()  # pictures leave the run's own stream as it was
            window = self.replay.sample(GAUGED, 1.0).window
            self.logger.pictures(self.frame, objective.pictures(window, generator))
            self.logger.gauges(self.frame, objective.gauges(window, generator))
            generator.set_state(stream)
        mean = sum(e["episode_return"] for e in self.final) / len(self.final)
        self.bar.say(f"eval at {self.frame:>9,} frames: score {mean:9.1f} over {len(self.final)} games")
        self.evaluated_at = self.step

    def finish(self) -> None:
        if self.config.eval.video:
            if not self.pictures:  # stopped between the last evaluation and here
                _, self.pictures = self.persist(lambda: evaluate(self.agent, self.config, 1, self.config.seed, film=True), lambda: None)
            print(f"video: {self.logger.video('final', self.pictures)}")
        returns = [e["episode_return"] for e in self.final]
        chosen = {k: self.config[k] for k in ("game", "method", "preset", "seed", "name")}
        mean = games.human_normalized(self.config.game, sum(returns) / len(returns))
        result = {**chosen, "frames": self.frame, "eval_returns": returns, "human_normalized": mean, "hours": self.hours}
        self.logger.final(self.frame, {"episode_return": sum(returns) / len(returns), "human_normalized": mean, "hours": self.hours})
        self.folder.finish(result, self.precision)
        if not self.config.checkpoint.keep_replay:
            self.checkpoints.drop_replay()


def main(arguments: list[str]) -> int:
    if multirun.asked(arguments):
        return multirun.main("Atari.train", CONFIGS.parent, arguments, read_config)
    config = read_config(arguments)
    command = shlex.join(["python", "-m", "Atari.train", *arguments])
    if (run_path(config) / "result.json").exists():
        folder = RunFolder(run_path(config), config)
        returns = folder.result["eval_returns"]
        print(f"{folder.path} has finished: score {sum(returns) / len(returns):.1f} at {folder.result['frames']:,} frames")
        return 0
    return Trainer(config, command).run()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    run_main(main)
