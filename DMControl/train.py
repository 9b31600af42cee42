"""Train one agent on one task.

python -m DMControl.train task=cheetah_run method=mlr preset=paper seed=1 device=cuda
python -m DMControl.train --multirun task=cheetah_run,walker_walk seed=1,2,3 hydra/launcher=submitit_slurm

Every key, with its meaning and default: configs/dmcontrol/config.yaml and configs/dmcontrol/method/. The same command again goes
on with a run that was stopped.
"""

import shlex
import sys

import numpy as np
import torch

from .core import machine
from .core.errors import UserError, run_main
from .core.method.reconstruction import GAUGED
from .core.run import multirun
from .core.run.config import Config
from .core.run.folder import RunFolder
from .core.run.progress import Bar, Every, Until
from .core.run.trainer import Run, require_disk
from .env import EVALUATE, TRAIN, Stack
from .evaluate import VIDEO_SIZE, env_fps, evaluate, make_env
from .logger import Logger
from .memory import capacity, memory
from .methods import CRITICS, make_agent
from .renderer import choose_renderer
from .replay import Replay
from .settings import CONFIGS, read_config, run_path, worlds_of
from .worlds.catalogue import WorldName, label


class Trainer(Run):
    ACTION = np.float32
    COUNTERS = (*Run.COUNTERS, "episode_return", "episode_start")

    def __init__(self, config: Config, command: str) -> None:
        super().__init__(config)
        image, path = config.image, run_path(config)
        self.world, *others = worlds_of(config)
        self.env = self.make_env()
        self.judges = {world: self.make_judge(world) for world in (self.world, *others)}
        need = memory(config, self.env.action_dim, self.precision)
        machine.require(self.device, need)
        require_disk(config.runs, path, need["replay"], need["networks"])
        self.agent = make_agent(config, self.env.action_dim, self.precision)
        if "mlr" in config and self.env.episode_length <= config.mlr.window:
            raise UserError(
                f"an episode of {config.task} has {self.env.episode_length} steps with action_repeat={config.action_repeat}: "
                f"no window of mlr.window={config.mlr.window} fits in"
            )
        self.replay = Replay(
            capacity(config), self.env.episode_length, image.stack, image.size, self.env.action_dim, self.device, self.agent.generator
        )
        self.eval_stack = Stack(image.stack, self.device)
        self.episode_return, self.episode_start = 0.0, 0
        resumed = self.open(path)
        self.folder.begin(self.precision, self.step)
        self.logger = Logger(self.folder.path, self.folder.config, command, self.env_step if resumed else None, env_fps(self.env))
        self.bar = Bar(config.env_steps, self.env_step, "env step")
        print(f"run: {self.folder.path}" + (f" (resumed at {self.env_step:,} env steps)" if resumed else ""))
        print(f"machine: {machine.describe(self.device)}, {str(self.precision.dtype)[6:]}, renderer {choose_renderer()}")
        if config.method in CRITICS and config.method != "mlr_madi" and config.preset in ("paper", "small"):
            own = {"paper": "madi", "small": "madi_small"}[config.preset]
            print(f"note: preset={config.preset} is a setting of MLR; that of {config.method} is preset={own}")
        print(self.replay, flush=True)

    def make_env(self):
        return make_env(self.config, self.config.seed, TRAIN, self.world)

    def make_judge(self, world: WorldName):
        return make_env(self.config, self.config.seed, EVALUATE, world)

    @property
    def env_step(self) -> int:
        return self.step * self.config.action_repeat

    def train(self) -> int:
        """Act, store, update, evaluate, log, save."""
        config = self.config
        until, repeat = Until(config.env_steps), config.action_repeat
        save_due = Every(config.checkpoint.every)
        if self.env.over:
            self.replay.start(self.reset())
        if self.evaluation_due():  # at step 0, or where a stop cut an evaluation off
            self.evaluate()
        while until(self.env_step) and not self.stop.signal:
            with self.timers("act"):
                action = self.choose()
            self.stop_if_not_finite()
            with self.timers("env"):
                result = self.advance(action)
            self.replay.add(action, result.reward, result.terminal, result.last, result.frame)
            self.step += 1
            self.episode_return += result.reward
            if self.step > config.sac.random_steps:
                with self.timers("update"):
                    for _ in range(self.updates_due()):
                        self.updated(self.agent.update(self.replay))
                    machine.wait(self.device)  # the next action would; it is the update's time
            if result.last:
                self.end_episode()
            if self.evaluation_due():
                self.evaluate()
            if save_due(self.env_step, repeat) and until(self.env_step):
                self.save()
            self.bar.advance(min(repeat, config.env_steps - self.env_step + repeat))
        self.save()
        self.bar.close()
        finished = not until(self.env_step) and self.evaluated_at == self.env_step
        if finished:
            self.finish()
        self.logger.close()
        print(f"{'finished' if finished else 'stopped'} at {self.env_step:,} env steps after {self.hours:.2f} h: {self.folder.path}")
        return 0 if finished else self.stop.exit_code

    def updates_due(self) -> int:
        sac = self.config.sac
        return sac.catch_up if sac.catch_up and self.step == sac.random_steps + 1 else sac.updates_per_step

    def evaluation_due(self) -> bool:
        every, repeat = Every(self.config.eval.every), self.config.action_repeat
        due = self.step == 0 or every(self.env_step, repeat) or self.env_step >= self.config.env_steps
        return due and self.evaluated_at != self.env_step

    def act(self) -> np.ndarray:
        if self.step < self.config.sac.random_steps:
            return self.agent.random_action()
        return self.agent.act(self.replay.newest(), sample=True)[0]

    def end_episode(self) -> None:
        self.stop_if_not_finite()
        times = self.timers.read()
        speed = self.row_updates / times["time/update"] if times.get("time/update") else 0.0
        row = {
            "step": self.step,
            "episode": self.episode,
            "episode_return": self.episode_return,
            "episode_length": self.step - self.episode_start,
            "hours": self.hours,
            "perf/updates_per_second": speed,
            "env/restarts": self.restarts,
            **self.averages.read(),
            **times,
        }
        self.logger.episode(self.env_step, row)
        self.bar.advance(0, episode_return=f"{self.episode_return:.1f}", updates_per_s=f"{speed:.1f}")
        self.episode, self.episode_return, self.episode_start, self.row_updates = self.episode + 1, 0.0, self.step, 0
        self.replay.start(self.reset())

    def evaluate(self) -> None:
        """Full episodes in an environment of their own; a stop in between leaves no trace, and they are run after the resume."""
        self.stop_if_not_finite()
        seen, masks = {}, {}
        for world in self.judges:
            with self.timers("eval"):
                film = self.config.eval.video and world == self.world
                seen[world] = self.judge(world, self.config.eval.episodes, film=int(film), stop=self.stop.asked)
            if seen[world] is None:
                return
            masks[world] = self.masks()
        self.final, frames = seen[self.world]
        for world, (episodes, _) in seen.items():
            self.logger.evaluation(self.env_step, self.step, self.hours, episodes, world, elsewhere=world != self.world)
            self.logger.masks(self.env_step, world, masks[world])
            if world != self.world:
                mean = sum(e["episode_return"] for e in episodes) / len(episodes)
                self.bar.say(f"eval at {self.env_step:>9,} env steps: return {mean:7.1f} in {label(world, self.config.data)}")
        if frames:
            self.logger.animation(self.env_step, frames)
        objective = self.agent.objective
        if objective is not None and len(self.replay) > 2 * objective.window:
            generator = torch.Generator(self.device).manual_seed(self.env_step)  # pictures leave the run's own stream alone
            window = self.replay.sample_windows(GAUGED, objective.window, generator)
            self.logger.pictures(self.env_step, objective.pictures(window, generator))
            self.logger.gauges(self.env_step, objective.gauges(window, generator))
        mean = sum(e["episode_return"] for e in self.final) / len(self.final)
        self.bar.say(f"eval at {self.env_step:>9,} env steps: return {mean:7.1f} over {len(self.final)} episodes")
        self.evaluated_at = self.env_step

    def judge(self, world: WorldName, episodes: int, **how):
        """Episodes in one world; after a crash all of them again, in a new environment."""
        def renew() -> None:
            self.judges[world] = self.make_judge(world)

        return self.persist(lambda: evaluate(self.agent, self.judges[world], self.eval_stack, episodes, **how), renew)

    def masks(self) -> dict[str, torch.Tensor]:
        """What the agent saw last in an evaluation, and what of it reached its networks."""
        with torch.no_grad():
            return self.agent.critic_loss.pictures(self.eval_stack.observation().centre_crop(self.config.image.crop))

    def finish(self) -> None:
        if self.config.eval.video:
            _, frames = self.judge(self.world, 1, film=1, size=VIDEO_SIZE)
            print(f"video: {self.logger.video('final', frames)}")
        returns = [e["episode_return"] for e in self.final]
        chosen = {k: self.config[k] for k in ("task", "method", "preset", "seed", "name")} | {"world": label(self.world, self.config.data)}
        result = {**chosen, "env_steps": self.env_step, "eval_returns": returns, "hours": self.hours}
        self.logger.final(self.env_step, {"episode_return": sum(returns) / len(returns), "hours": self.hours})
        self.folder.finish(result, self.precision)
        if not self.config.checkpoint.keep_replay:
            self.checkpoints.drop_replay()


def main(arguments: list[str]) -> int:
    choose_renderer()
    if multirun.asked(arguments):
        return multirun.main("DMControl.train", CONFIGS.parent, arguments, read_config)
    config = read_config(arguments)
    command = shlex.join(["python", "-m", "DMControl.train", *arguments])
    if (run_path(config) / "result.json").exists():
        folder = RunFolder(run_path(config), config)
        returns = folder.result["eval_returns"]
        print(f"{folder.path} has finished: return {sum(returns) / len(returns):.1f} at {folder.result['env_steps']:,} env steps")
        return 0
    return Trainer(config, command).run()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    run_main(main)
