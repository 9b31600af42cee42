"""Train one agent on one game.

python -m Atari.train game=pong method=mlr preset=paper seed=1 device=cuda
python -m Atari.train --multirun preset=paper game=pong,alien seed=1,2,3 hydra/launcher=submitit_slurm

Every key, with its meaning and default: configs/atari/config.yaml and configs/atari/method/. Repeat the command to
resume a run that was stopped.
"""

import shlex
import sys

from .core.errors import UserError, check_first, run_main
from .core.run import multirun
from .settings import CONFIGS, GYM, read_config, run_path

if __name__ == "__main__":  # the imports below take seconds
    check_first(lambda arguments: multirun.check(CONFIGS.parent, arguments, read_config))

import numpy as np

from . import games
from .core import machine
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.folder import RunFolder, has_finished
from .core.run.progress import Every, Until
from .core.run.repeatable import check_repetition
from .core.run.trainer import Trainer as Base
from .core.run.trainer import require_disk
from .distraction import Distraction, distractions_of, label
from .env import TRAIN, Env
from .evaluate import Outcome, evaluate, make_env
from .logger import Logger, tag
from .memory import capacity, memory, new_replay
from .methods import make_agent
from .player import load
from .replay import Replay

WINDOWS = {"mlr": "mlr.window", "baseline": "baseline.window", "spr": "spr.steps + 1"}  # block: its observations per sequence


class Trainer(Base):
    ACTION = np.int64

    def __init__(self, config: Config, env: Env, agent: Agent, replay: Replay, logger: Logger, folder: RunFolder) -> None:
        super().__init__(config, env, agent, replay, logger, folder)
        self.repeat = config.env.frame_skip
        self.judged = distractions_of(config)
        self.distraction = self.judged[0]
        self.pictures: list[np.ndarray] = []

    def train(self) -> int:
        """Act, store, update, evaluate, log, save."""
        config = self.config
        until, save_due = Until(config.steps), Every(config.checkpoint.every)
        if self.env.over:
            self.start_episode()
        if self.evaluation_due():  # at step 0, or if a stop interrupted an evaluation
            self.evaluate()
        while until(self.step) and not self.stop.asked():
            with self.timers("act"):
                action = self.choose(random=self.pending is None and self.agent.explores(self.step))
            self.stop_if_not_finite()
            with self.timers("env"):
                result = self.advance(action)
            self.replay.add(action, result)
            self.step += 1
            self.update(self.updates_due())
            if result.over:
                self.end_episode(self.env.score, self.env.steps)  # the raw score
                self.start_episode()
            if self.evaluation_due():
                self.evaluate()
            if save_due(self.step) and until(self.step):
                self.save()
            self.bar.advance(self.repeat)
        self.save()
        return self.end(not until(self.step) and self.evaluated_at == self.step, "frame")

    def source(self, run: str) -> Agent:
        return load(run, str(self.device)).agent

    def make_env(self) -> Env:
        return make_env(self.config, self.config.seed, TRAIN)

    def evaluation_due(self) -> bool:
        due = self.step == 0 or Every(self.config.eval.every)(self.step) or self.step >= self.config.steps
        return due and self.evaluated_at != self.step

    def evaluate(self) -> None:
        """Play full games in each distraction. If a stop interrupts this, nothing is logged and a resume repeats it."""
        self.stop_if_not_finite()
        settings, judged = self.config.eval, {}
        episodes = settings.final_episodes if self.step >= self.config.steps else settings.episodes
        for distraction in self.judged:
            with self.timers("eval"):
                judged[distraction] = self.judge(distraction, episodes, film=settings.video and distraction == self.distraction)
            if judged[distraction] is None:
                return
        self.final, self.pictures, _ = judged[self.distraction]
        for distraction, outcome in judged.items():
            elsewhere = distraction != self.distraction
            self.logger.evaluation(self.at, self.step, self.hours, outcome.results, distraction, elsewhere)
            self.logger.masks(self.at, tag(distraction, self.config.data), outcome.masks)
            if elsewhere:
                mean = sum(e["episode_return"] for e in outcome.results) / len(outcome.results)
                self.bar.say(f"eval at {self.at:>9,} frames: score {mean:9.1f}, {label(distraction, self.config.data)}")
        if self.pictures:
            self.logger.animation(self.at, self.pictures)
        self.evaluated(f"eval at {self.at:>9,} frames: score {{mean:9.1f}} over {{count}} games")
        self.evaluated_at = self.step

    def judge(self, distraction: Distraction, episodes: int, film: bool) -> Outcome | None:
        """Play games in one distraction, after a crash all of them again; None if stopped."""
        play = lambda: evaluate(self.agent, self.config, episodes, self.config.seed, film, self.stop.asked, distraction)  # noqa: E731
        return self.retry(play, lambda: None)  # `evaluate` makes new environments each time

    def finish(self) -> None:
        if self.config.eval.video:
            if not self.pictures:  # a stop came after the last evaluation
                self.pictures = self.retry(lambda: evaluate(self.agent, self.config, 1, self.config.seed, film=True), lambda: None).pictures
            print(f"video: {self.logger.video('final', self.pictures)}")
        chosen = {k: self.config[k] for k in ("game", "method", "preset", "seed", "name")}
        mean = sum(e["episode_return"] for e in self.final) / len(self.final)
        self.write_result(
            chosen | {"distraction": label(self.distraction, self.config.data), "frames": self.at},
            {"human_normalized": games.human_normalized(self.config.game, mean)},
        )


def make_replay(config: Config, agent: Agent) -> Replay:
    """Without an objective the replay still samples sequences, which are not used, so that the same transitions are drawn."""
    unused = config.baseline.window if "baseline" in config else config.spr.steps + 1 if "spr" in config else 1
    return new_replay(config, capacity(config), agent.window or unused, agent)


def make_trainer(config: Config, command: str) -> Trainer:
    """Build environment, agent, replay and logger, and hand them to a Trainer."""
    precision = machine.prepare(config.device, config.precision, config.threads)
    path = run_path(config)
    env = make_env(config, config.seed, TRAIN)
    if config.game.startswith(GYM):
        check_repetition(env, lambda: make_env(config, config.seed, TRAIN))
    need = memory(config, env.n_actions, precision)
    machine.require(precision.device, need)
    require_disk(config.runs, path, need["replay"], need["networks"])
    agent = make_agent(config, env.n_actions, precision)
    replay = make_replay(config, agent)
    if config.train.random_steps <= replay.reserve:
        window = next((key for block, key in WINDOWS.items() if block in config), "window")
        raise UserError(f"train.random_steps={config.train.random_steps} must exceed 1 + rainbow.n_step + {window} = {replay.reserve}")
    folder = RunFolder(path, config)
    trainer = Trainer(config, env, agent, replay, Logger(folder.path, folder.config, command, agent), folder)
    trainer.open(precision, config.steps * config.env.frame_skip, "frame")
    if "dopamine_2021" in config:
        print(
            f"{config.method}: Dopamine's agent " + ("of the summer of 2021" if config.dopamine_2021 else "of today (dopamine_2021=false)")
        )
    print(f"machine: {machine.describe(precision.device)}, {str(precision.dtype)[6:]}")
    if note := trainer.hours_ahead(precision, trainer.step, config.steps):
        print(note)
    print(replay, flush=True)
    return trainer


def main(arguments: list[str]) -> int:
    if multirun.asked(arguments):
        return multirun.main("Atari.train", CONFIGS.parent, arguments, read_config)
    config = read_config(arguments)
    command = shlex.join(["python", "-m", "Atari.train", *arguments])
    if has_finished(run_path(config), config):
        folder = RunFolder(run_path(config), config)
        returns = folder.result["eval_returns"]
        print(f"{folder.path} has finished: score {sum(returns) / len(returns):.1f} at {folder.result['frames']:,} frames")
        return 0
    return make_trainer(config, command).run()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    run_main(main)
