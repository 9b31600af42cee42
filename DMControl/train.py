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
from .worlds.places import Place, check_data, label, places

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dmcontrol"
RANGES = {
    "seed": (0, 2**31 - 1), "threads": (0, 1024), "chunk": (0, None), "env_steps": (1, 10**9), "action_repeat": (1, 1000),
    "env_restarts": (0, 10**6),
    "image.size": (16, 512), "image.crop": (16, 512), "image.stack": (1, 16), "replay.capacity": (100, None),
    "augment.pad": (0, 64), "augment.intensity": (0, 1), "encoder.filters": (1, 4096), "encoder.strides": (1, 4),
    "encoder.centre": (0, 255),
    "encoder.dim": (1, None), "sac.batch_size": (1, None), "sac.hidden": (1, None), "sac.lr": (0, 1), "sac.alpha_lr": (0, 1),
    "sac.discount": (0, 1), "sac.init_temperature": (1e-8, None), "sac.critic_tau": (0, 1), "sac.encoder_tau": (0, 1),
    "sac.actor_every": (1, None), "sac.target_every": (1, None), "sac.random_steps": (1, None), "sac.updates_per_step": (0, 64),
    "eval.every": (1, None), "eval.episodes": (1, None), "checkpoint.every": (1, None), "mlr.batch_size": (1, None),
    "mlr.window": (1, 256), "mlr.lr": (0, 1), "mlr.warmup": (0, None), "mlr.clip": (1e-8, None), "mlr.tau": (0, 1),
    "mlr.hidden": (1, None), "mlr.mask.patch": (1, None), "mlr.mask.block": (1, None), "mlr.decoder.depth": (0, 64),
    "mlr.decoder.width": (1, None), "mlr.decoder.heads": (1, None), "mlr.decoder.mlp_ratio": (0.1, 64),
    "dmcgb.action_repeat": (1, 1000), "dmcgb.agent_steps": (1, 10**8), "sac.weight_decay": (0, 1), "sac.catch_up": (0, 10**5),
    "strong.alpha": (0, 1), "strong.images": (1, 10**5), "svea.alpha": (0, 100), "svea.beta": (0, 100), "masker.depth": (1, 32),
    "masker.width": (1, 1024), "masker.threshold": (0, 1), "masker.lr": (0, 1), "soda.batch_size": (2, None), "soda.lr": (0, 1),
    "soda.tau": (0, 1), "soda.every": (1, None), "sgqn.quantile": (0, 0.9999), "sgqn.weight": (0, None), "sgqn.lr": (0, 1),
    "sgqn.every": (1, None),
}  # fmt: skip
CHOICES = {
    "encoder.init": ("delta_orthogonal", "kaiming"), "mlr.target": ("latent", "pixels"), "mlr.decay": ("inverse_sqrt", "constant"),
    "protocol": ("mlr", "dmcgb"), "strong.augment": ("overlay", "conv", "none"), "masker.type": ("soft", "hard", "mixed"),
}  # fmt: skip
NEEDS = {  # keys that nothing reads unless another key has one of these values
    "dmcgb.action_repeat": ("protocol", ("dmcgb",)), "dmcgb.agent_steps": ("protocol", ("dmcgb",)),
    "intensity": ("world", ("distracting_cs",)), "masker.threshold": ("masker.type", ("hard", "mixed")),
    "strong.alpha": ("strong.augment", ("overlay",)), "strong.images": ("strong.augment", ("overlay",)),
}  # fmt: skip
SHORT = {"augment": "strong.augment"}  # what users of the published code type


def read_config(arguments: list[str]) -> Config:
    from .env import TASKS

    pairs = [(key, text) for key, equals, text in (a.partition("=") for a in arguments) if equals]
    typed = {SHORT.get(key, key) for key, _ in pairs}
    arguments = [SHORT.get(a.partition("=")[0], a.partition("=")[0]) + a[len(a.partition("=")[0]) :] for a in arguments]
    own = set(configuration.choices(CONFIGS, "task"))
    stand_ins = {("task", name): "other" for name in TASKS if name not in own}
    config = configuration.load(CONFIGS, arguments, ("task", "method", "preset"), stand_ins)
    configuration.check_ranges(config, RANGES)
    flat = dict(configuration.flatten(config))
    for key, words in CHOICES.items():
        if key in flat and flat[key] not in words:
            raise UserError(f"{key}={flat[key]} is unknown: {nearest(flat[key], words)}")
    for key in sorted(typed & set(NEEDS)):
        other, words = NEEDS[key]
        if flat[other] not in words:
            raise UserError(f"key {key} has no effect with {other}={flat[other]}: it takes {other}={' or '.join(words)}")
    chosen = typed | configuration.keys_in(CONFIGS / "preset" / f"{config.preset}.yaml")  # what the protocol leaves alone
    protocol, repeat, agent_steps = config.protocol == "dmcgb", config.dmcgb.action_repeat, config.dmcgb.agent_steps
    if protocol and "action_repeat" not in chosen:
        config["action_repeat"] = repeat
    if protocol and "env_steps" not in chosen:
        config["env_steps"] = agent_steps * config["action_repeat"]
    if not {"crop", "resized_crop"} & set(config["augment"]["order"]) and "image.size" not in typed:
        config["image"]["size"] = config["image"]["crop"]
    places([config["world"]], [config["intensity"]])
    if config["eval"]["worlds"]:
        places(config["eval"]["worlds"], config["eval"]["intensities"])
    check_data(config["data"])
    if config["env_steps"] <= config["sac"]["random_steps"] * config["action_repeat"]:
        raise UserError(
            f"env_steps={config['env_steps']} must exceed sac.random_steps x action_repeat = "
            f"{config['sac']['random_steps'] * config['action_repeat']}: nothing is learnt before"
        )
    if len(config["encoder"]["centre"]) not in (0, 3):
        raise UserError(f"encoder.centre={config['encoder']['centre']} must have a value per colour, or none: []")
    low_high = config["sac"]["log_std"]
    if len(low_high) != 2 or low_high[0] >= low_high[1]:
        raise UserError(f"sac.log_std={low_high} must be two numbers, the smaller one first")
    if "mlr" in config and config["sac"]["random_steps"] < config["mlr"]["window"] + 2:
        raise UserError(f"sac.random_steps={config['sac']['random_steps']} must be at least mlr.window + 2 = {config['mlr']['window'] + 2}")
    return config


def run_path(config: Config) -> Path:
    seed = f"{config.name}-seed{config.seed}" if config.name else f"seed{config.seed}"
    return safe_folder(config.runs, "dmcontrol", config.task, f"{config.method}-{config.preset}", seed)


def worlds_of(config: Config) -> list[Place]:
    """The world to train in, then the others to be judged in."""
    own = places([config.world], [config.intensity])
    extra, intensities = config.eval.worlds, config.eval.intensities
    return list(dict.fromkeys(own + (places(extra, intensities) if extra else [])))


class Trainer(Run):
    ACTION = np.float32
    COUNTERS = (*Run.COUNTERS, "episode_return", "episode_start")

    def __init__(self, config: Config, command: str) -> None:
        from .env import Stack
        from .evaluate import env_fps
        from .logger import Logger
        from .methods import CRITICS, make_agent
        from .replay import Replay

        super().__init__(config)
        image, path = config.image, run_path(config)
        self.place, *others = worlds_of(config)
        self.env = self.make_env()
        self.judges = {place: self.make_judge(place) for place in (self.place, *others)}
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
        from .env import TRAIN
        from .evaluate import make_env

        return make_env(self.config, self.config.seed, TRAIN, self.place)

    def make_judge(self, place: Place):
        from .env import EVALUATE
        from .evaluate import make_env

        return make_env(self.config, self.config.seed, EVALUATE, place)

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
        for place in self.judges:
            with self.timers("eval"):
                film = self.config.eval.video and place == self.place
                seen[place] = self.judge(place, self.config.eval.episodes, film=int(film), stop=self.stop.asked)
            if seen[place] is None:
                return
            masks[place] = self.masks()
        self.final, frames = seen[self.place]
        for place, (episodes, _) in seen.items():
            self.logger.evaluation(self.env_step, self.step, self.hours, episodes, place, elsewhere=place != self.place)
            self.logger.masks(self.env_step, place, masks[place])
            if place != self.place:
                mean = sum(e["episode_return"] for e in episodes) / len(episodes)
                self.bar.say(f"eval at {self.env_step:>9,} env steps: return {mean:7.1f} in {label(place, self.config.data)}")
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

    def judge(self, place: Place, episodes: int, **how):
        """Episodes in one world; after a crash all of them again, in a new environment."""
        from .evaluate import evaluate

        def renew() -> None:
            self.judges[place] = self.make_judge(place)

        return self.persist(lambda: evaluate(self.agent, self.judges[place], self.eval_stack, episodes, **how), renew)

    def masks(self) -> dict[str, torch.Tensor]:
        """What the agent saw last in an evaluation, and what of it reached its networks."""
        with torch.no_grad():
            return self.agent.critic_loss.pictures(self.eval_stack.observation().centre_crop(self.config.image.crop))

    def finish(self) -> None:
        from .evaluate import VIDEO_SIZE

        if self.config.eval.video:
            _, frames = self.judge(self.place, 1, film=1, size=VIDEO_SIZE)
            print(f"video: {self.logger.video('final', frames)}")
        returns = [e["episode_return"] for e in self.final]
        chosen = {k: self.config[k] for k in ("task", "method", "preset", "seed", "name")} | {"world": label(self.place, self.config.data)}
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
