"""Train one agent on one task.

python -m DMControl.train task=cheetah_run method=mlr preset=paper seed=1 device=cuda
python -m DMControl.train --multirun task=cheetah_run,walker_walk seed=1,2,3 hydra/launcher=submitit_slurm

Every key, with its meaning and default: configs/dmcontrol/config.yaml and configs/dmcontrol/method/. The same command again goes
on with a run that was stopped.
"""

import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from .core import config as configuration
from .core import machine, multirun
from .core.config import Config
from .core.errors import UserError, nearest, run_main
from .core.progress import Bar, Every, Until
from .core.run import RunFolder, safe_folder
from .core.trainer import Run, require_disk
from .needs import capacity, memory
from .renderer import choose_renderer

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dmcontrol"
RANGES = {
    "seed": (0, 2**31 - 1), "threads": (0, 1024), "chunk": (0, None), "env_steps": (1, 10**9), "action_repeat": (1, 1000),
    "env_restarts": (0, 10**6),
    "image.size": (16, 512), "image.crop": (16, 512), "image.stack": (1, 16), "replay.capacity": (100, None),
    "augment.pad": (0, 64), "augment.intensity": (0, 1), "encoder.filters": (1, 4096), "encoder.strides": (1, 4),
    "encoder.dim": (1, None), "sac.batch_size": (1, None), "sac.hidden": (1, None), "sac.lr": (0, 1), "sac.alpha_lr": (0, 1),
    "sac.discount": (0, 1), "sac.init_temperature": (1e-8, None), "sac.critic_tau": (0, 1), "sac.encoder_tau": (0, 1),
    "sac.actor_every": (1, None), "sac.target_every": (1, None), "sac.random_steps": (1, None), "sac.updates_per_step": (0, 64),
    "eval.every": (1, None), "eval.episodes": (1, None), "checkpoint.every": (1, None), "mlr.batch_size": (1, None),
    "mlr.window": (1, 256), "mlr.lr": (0, 1), "mlr.warmup": (0, None), "mlr.clip": (1e-8, None), "mlr.tau": (0, 1),
    "mlr.hidden": (1, None), "mlr.mask.patch": (1, None), "mlr.mask.block": (1, None), "mlr.decoder.depth": (0, 64),
    "mlr.decoder.width": (1, None), "mlr.decoder.heads": (1, None), "mlr.decoder.mlp_ratio": (0.1, 64),
}  # fmt: skip
CHOICES = {"encoder.init": ("delta_orthogonal", "kaiming"), "mlr.target": ("latent", "pixels"), "mlr.decay": ("inverse_sqrt", "constant")}


def read_config(arguments: list[str]) -> Config:
    from .env import TASKS

    own = set(configuration.choices(CONFIGS, "task"))
    stand_ins = {("task", name): "other" for name in TASKS if name not in own}
    config = configuration.load(CONFIGS, arguments, ("task", "method", "preset"), stand_ins)
    configuration.check_ranges(config, RANGES)
    flat = dict(configuration.flatten(config))
    for key, words in CHOICES.items():
        if key in flat and flat[key] not in words:
            raise UserError(f"{key}={flat[key]} is unknown: {nearest(flat[key], words)}")
    if config["env_steps"] <= config["sac"]["random_steps"] * config["action_repeat"]:
        raise UserError(
            f"env_steps={config['env_steps']} must exceed sac.random_steps x action_repeat = "
            f"{config['sac']['random_steps'] * config['action_repeat']}: nothing is learnt before"
        )
    low_high = config["sac"]["log_std"]
    if len(low_high) != 2 or low_high[0] >= low_high[1]:
        raise UserError(f"sac.log_std={low_high} must be two numbers, the smaller one first")
    if "mlr" in config and config["sac"]["random_steps"] < config["mlr"]["window"] + 2:
        raise UserError(f"sac.random_steps={config['sac']['random_steps']} must be at least mlr.window + 2 = {config['mlr']['window'] + 2}")
    return config


def run_path(config: Config) -> Path:
    seed = f"{config.name}-seed{config.seed}" if config.name else f"seed{config.seed}"
    return safe_folder(config.runs, "dmcontrol", config.task, f"{config.method}-{config.preset}", seed)


class Trainer(Run):
    ACTION = np.float32
    COUNTERS = (*Run.COUNTERS, "episode_return", "episode_start")

    def __init__(self, config: Config, command: str) -> None:
        from .env import Stack
        from .evaluate import env_fps
        from .logger import Logger
        from .methods import make_agent
        from .replay import Replay

        super().__init__(config)
        image, path = config.image, run_path(config)
        self.env, self.eval_env = self.make_env(), self.make_env(judged=True)
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
        resumed = self.open(path, {k: v.parameters for k, v in self.agent._optimizers().items() if v.clip is None})
        self.folder.begin(self.device, self.step)
        self.logger = Logger(self.folder.path, self.folder.config, command, self.env_step if resumed else None, env_fps(self.env))
        self.bar = Bar(config.env_steps, self.env_step, "env step")
        print(f"run: {self.folder.path}" + (f" (resumed at {self.env_step:,} env steps)" if resumed else ""))
        kind = f"{machine.describe(self.device)}, {str(self.precision.dtype)[6:]}, {self.threads} threads"
        print(f"machine: {kind}, renderer {choose_renderer()}")
        print(self.replay, flush=True)

    def make_env(self, judged: bool = False):
        from .env import EVALUATE, TRAIN, Env

        config = self.config
        return Env(config.task, config.action_repeat, config.image.size, config.image.shadows, config.seed, EVALUATE if judged else TRAIN)

    def renew_judge(self) -> None:
        self.eval_env = self.make_env(judged=True)

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
                    for _ in range(config.sac.updates_per_step):
                        self.updated(self.agent.update(self.replay))
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
        from .evaluate import evaluate

        self.stop_if_not_finite()
        config = self.config.eval

        stop = self.stop.asked
        with self.timers("eval"):
            outcome = self.persist(
                lambda: evaluate(self.agent, self.eval_env, self.eval_stack, config.episodes, film=int(config.video), stop=stop),
                self.renew_judge,
            )
        if outcome is None:
            return
        self.final, frames = outcome
        self.logger.evaluation(self.env_step, self.step, self.hours, self.final)
        if frames:
            self.logger.animation(self.env_step, frames)
        objective = self.agent.objective
        if objective is not None and len(self.replay) > 2 * objective.window:
            generator = torch.Generator(self.device).manual_seed(self.env_step)  # pictures leave the run's own stream alone
            window = self.replay.sample_windows(4, objective.window, generator)
            self.logger.pictures(self.env_step, objective.pictures(window, generator))
            self.logger.gauges(self.env_step, objective.gauges(generator))
        mean = sum(e["episode_return"] for e in self.final) / len(self.final)
        self.bar.say(f"eval at {self.env_step:>9,} env steps: return {mean:7.1f} over {len(self.final)} episodes")
        self.evaluated_at = self.env_step

    def finish(self) -> None:
        from .evaluate import VIDEO_SIZE, evaluate

        if self.config.eval.video:
            _, frames = self.persist(
                lambda: evaluate(self.agent, self.eval_env, self.eval_stack, 1, film=1, size=VIDEO_SIZE), self.renew_judge
            )
            print(f"video: {self.logger.video('final', frames)}")
        returns = [e["episode_return"] for e in self.final]
        chosen = {k: self.config[k] for k in ("task", "method", "preset", "seed", "name")}
        result = {**chosen, "env_steps": self.env_step, "eval_returns": returns, "hours": self.hours}
        self.logger.final(self.env_step, {"episode_return": sum(returns) / len(returns), "hours": self.hours})
        self.folder.finish(result, self.device)
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
