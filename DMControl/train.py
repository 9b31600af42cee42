"""Train one agent on one task.

python -m DMControl.train task=cheetah_run method=mlr preset=paper seed=1 device=cuda
python -m DMControl.train --multirun preset=paper task=cheetah_run,walker_walk seed=1,2,3 hydra/launcher=submitit_slurm

Every key, with its meaning and default: configs/dmcontrol/config.yaml and configs/dmcontrol/method/. Repeat the command to
resume a run that was stopped.
"""

import shlex
import sys
from typing import Any

from .core.errors import UserError, check_first, run_main
from .core.run import multirun
from .settings import CONFIGS, GYM, check_run, read_config, run_path, unit_of, window_keys, worlds_of

if __name__ == "__main__":  # the imports below take seconds
    check_first(lambda arguments: multirun.check(CONFIGS.parent, arguments, check_run))

import numpy as np

from .core import machine
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.folder import RunFolder, has_finished
from .core.run.progress import Elapsed, Every, Until
from .core.run.repeatable import check_repetition
from .core.run.trainer import Trainer as Base
from .core.run.trainer import require_disk
from .env import EVALUATE, TRAIN, Env, Stack
from .evaluate import VIDEO_SIZE, evaluate, make_env
from .logger import Logger, tag
from .memory import capacity, memory
from .methods import make_agent
from .player import load
from .renderer import choose_renderer
from .replay import Replay
from .worlds.catalogue import WorldName, label

SAVE_IN_UPDATES = 900.0  # seconds between saves while a step's updates take longer
MADI_METHODS = ("sac", "rad", "svea", "soda", "sgqn", "madi")  # methods that only MaDi's paper has


class Trainer(Base):
    ACTION = np.float32
    COUNTERS = (*Base.COUNTERS, "episode_return", "episode_start", "owed")

    def __init__(self, config: Config, env: Env, agent: Agent, replay: Replay, logger: Logger, folder: RunFolder) -> None:
        super().__init__(config, env, agent, replay, logger, folder)
        self.repeat = config.action_repeat
        self.world, *others = worlds_of(config)
        self.judges = {world: self.make_judge(world) for world in (self.world, *others)}
        self.eval_stack = Stack(config.image.stack, self.device)
        self.episode_return, self.episode_start = 0.0, 0
        self.owed = 0  # updates that this agent step still asks for
        self.save_in_updates = Elapsed(SAVE_IN_UPDATES)

    def train(self) -> int:
        """Act, store, update, evaluate, log, save."""
        config, repeat = self.config, self.repeat
        until, save_due = Until(config.env_steps), Every(config.checkpoint.every)
        if self.env.over and not self.owed:
            self.start_episode()
        if self.evaluation_due() and not self.owed:  # at step 0, or if a stop interrupted an evaluation
            self.evaluate()
        while (until(self.at) or self.owed) and not self.stop.asked():
            if not self.owed:
                self.move()
                self.owed = self.updates_due()
            self.owed = self.update(self.owed, self.pause)
            if self.owed:  # a pause in the middle of many updates
                if not self.stop.asked():
                    self.save()
                continue
            if self.env.over:
                self.end_episode(self.episode_return, self.step - self.episode_start)
                self.episode_return, self.episode_start = 0.0, self.step
                self.start_episode()
            if self.evaluation_due():
                self.evaluate()
            if save_due(self.at, repeat) and until(self.at):
                self.save()
            self.bar.advance(min(repeat, config.env_steps - self.at + repeat))
        self.save()
        return self.end(not until(self.at) and self.evaluated_at == self.at, "env step")

    def move(self) -> None:
        """One agent step: act and store."""
        with self.timers("act"):
            action = self.choose(random=self.counts()[1] < self.config.train.random_steps)
        self.stop_if_not_finite()
        with self.timers("env"):
            result = self.advance(action)
        self.replay.add(action, result.reward, result.terminal, result.last, result.frame)
        self.step += 1
        self.episode_return += result.reward

    def lose_episode(self) -> None:
        super().lose_episode()
        self.episode_return, self.episode_start = 0.0, self.step

    def counts(self) -> tuple[int, int]:
        unit = unit_of(self.config.train)
        if unit == "episode":
            return self.episode, self.episode + self.env.over
        return (self.at - self.repeat, self.at) if unit == "env_step" else super().counts()

    def count_at(self, at: int) -> int:
        """The value of `counts` after this many env steps."""
        return -(-at // unit_length(self.config, self.env))

    def pause(self) -> bool:
        return self.stop.asked() or self.save_in_updates()

    def source(self, run: str) -> Agent:
        return load(run, str(self.device)).agent

    def make_env(self) -> Env:
        return make_env(self.config, self.config.seed, TRAIN, self.world)

    def make_judge(self, world: WorldName) -> Env:
        return make_env(self.config, self.config.seed, EVALUATE, world)

    def evaluation_due(self) -> bool:
        due = self.step == 0 or Every(self.config.eval.every)(self.at, self.repeat) or self.at >= self.config.env_steps
        return due and self.evaluated_at != self.at

    def evaluate(self) -> None:
        """Play full episodes, with an environment per world. If a stop interrupts this, nothing is logged and a resume repeats it."""
        self.stop_if_not_finite()
        judged, masks = {}, {}
        for world in self.judges:
            with self.timers("eval"):
                film = self.config.eval.video and world == self.world
                judged[world] = self.judge(world, self.config.eval.episodes, film=int(film), stop=self.stop.asked)
            if judged[world] is None:
                return
            masks[world] = self.agent.seen(self.eval_stack.observation(), elsewhere=world != self.world)
        self.final, frames = judged[self.world]
        for world, (episodes, _) in judged.items():
            self.logger.evaluation(self.at, self.step, self.hours, episodes, world, elsewhere=world != self.world)
            self.logger.masks(self.at, tag(world, self.config.data), masks[world])
            if world != self.world:
                mean = sum(e["episode_return"] for e in episodes) / len(episodes)
                self.bar.say(f"eval at {self.at:>9,} env steps: return {mean:7.1f} in {label(world, self.config.data)}")
        if frames:
            self.logger.animation(self.at, frames)
        self.evaluated(f"eval at {self.at:>9,} env steps: return {{mean:7.1f}} over {{count}} episodes")
        self.evaluated_at = self.at

    def judge(self, world: WorldName, episodes: int, **how: Any) -> tuple[list[dict[str, float]], list[np.ndarray]] | None:
        """Play episodes in one world. After a crash, a new environment repeats all of them."""

        def renew() -> None:
            self.judges[world].close()
            self.judges[world] = self.make_judge(world)

        elsewhere = world != self.world
        return self.retry(lambda: evaluate(self.agent, self.judges[world], self.eval_stack, episodes, elsewhere, **how), renew)

    def finish(self) -> None:
        if self.config.eval.video:
            _, frames = self.judge(self.world, 1, film=1, size=VIDEO_SIZE)
            print(f"video: {self.logger.video('final', frames)}")
        chosen = {k: self.config[k] for k in ("task", "method", "preset", "seed", "name")}
        self.write_result(chosen | {"world": label(self.world, self.config.data), "env_steps": self.at}, {})


def unit_length(config: Config, env: Env) -> int:
    """Env steps in one unit of train.random_steps."""
    return {"step": env.action_repeat, "env_step": 1, "episode": env.action_repeat * env.episode_length}[unit_of(config.train)]


def make_trainer(config: Config, command: str) -> Trainer:
    """Build environment, agent, replay and logger, and hand them to a Trainer."""
    precision = machine.prepare(config.device, config.precision, config.threads)
    path, image = run_path(config), config.image
    env = make_env(config, config.seed, TRAIN, worlds_of(config)[0])
    if config.task.startswith(GYM):
        check_repetition(env, lambda: make_env(config, config.seed, TRAIN, worlds_of(config)[0]))
    need = memory(config, env.action_dim, precision)
    machine.require(precision.device, need)
    require_disk(config.runs, path, need["replay"], need["networks"])
    agent = make_agent(config, env.action_dim, precision)
    if env.episode_length <= agent.window:
        raise UserError(
            f"an episode of {config.task} has {env.episode_length} steps with action_repeat={config.action_repeat}: "
            f"a window of {agent.window} does not fit: lower {' or '.join([*window_keys(config), 'action_repeat'])}"
        )
    random = config.train.random_steps * unit_length(config, env)
    if config.env_steps <= random:  # the settings check this for steps; only the environment knows the length of an episode
        raise UserError(f"env_steps={config.env_steps} must exceed train.random_steps, {random} in env steps: nothing is learnt before")
    replay = Replay(capacity(config), env.episode_length, image.stack, image.size, env.action_dim, precision.device, agent.generator)
    folder = RunFolder(path, config)
    logger = Logger(folder.path, folder.config, command, agent, env.fps)
    trainer = Trainer(config, env, agent, replay, logger, folder)
    trainer.open(precision, config.env_steps, "env step")
    print(f"machine: {machine.describe(precision.device)}, {str(precision.dtype)[6:]}, renderer {choose_renderer()}")
    if note := trainer.hours_ahead(precision, trainer.count_at(trainer.at), trainer.count_at(config.env_steps)):
        print(note)
    if config.method in MADI_METHODS and config.preset in ("paper", "small"):
        own = {"paper": "madi", "small": "madi_small"}[config.preset]
        print(f"note: preset={config.preset} holds the settings of MLR; the preset for {config.method} is {own}")
    print(f"task: {config.task}, action repeat {config.action_repeat}; the first {random:,} env steps are random")
    print(replay, flush=True)
    return trainer


def main(arguments: list[str]) -> int:
    if multirun.asked(arguments):
        return multirun.main("DMControl.train", CONFIGS.parent, arguments, read_config)
    config = read_config(arguments)
    command = shlex.join(["python", "-m", "DMControl.train", *arguments])
    if has_finished(run_path(config), config):
        folder = RunFolder(run_path(config), config)
        returns = folder.result["eval_returns"]
        print(f"{folder.path} has finished: return {sum(returns) / len(returns):.1f} at {folder.result['env_steps']:,} env steps")
        return 0
    return make_trainer(config, command).run()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    run_main(main)
