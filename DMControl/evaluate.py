"""Judge a policy: full episodes, deterministic actions, an environment of its own.

python -m DMControl.evaluate run=runs/dmcontrol/cartpole_swingup/mlr-small/seed1 episodes=10 video=true
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from .core import machine
from .core.checkpoint import Checkpoints
from .core.config import Config
from .core.errors import UserError, nearest, run_main
from .core.run import read_config
from .core.writers import append_rows, video
from .logger import EVAL_COLUMNS
from .renderer import choose_renderer
from .sac import SAC

VIDEO_SIZE = 256


def run_episode(agent: SAC, env, stack, episode: int, size: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """Yields each step's reward and frame (of `size` pixels if given, else as the agent sees it)."""
    frame = env.reset(episode)
    stack.start(frame)
    while not env.over:
        step = env.step(agent.act(stack.observation(), sample=False)[0])
        stack.push(step.frame)
        yield step.reward, env.render(size) if size else step.frame


def evaluate(
    agent: SAC, env, stack, episodes: int, first: int = 0, film: int = 0, size: int | None = None, stop: Callable[[], bool] = bool
) -> tuple[list[dict[str, float]], list[np.ndarray]] | None:
    """Returns of `episodes` episodes numbered from `first`, and the frames of the first `film` of them; None if stopped."""
    results, frames = [], []
    for number in range(episodes):
        total, length = 0.0, 0
        for reward, frame in run_episode(agent, env, stack, first + number, size if number < film else None):
            total, length = total + reward, length + 1
            if number < film:
                frames.append(frame)
            if stop():
                return None
        results.append({"episode_return": total, "episode_length": length})
    return results, frames


def load_agent(path: Path, config: Config, action_dim: int, precision: machine.Precision) -> tuple[SAC, int]:
    """The newest saved agent of a run, and its agent step."""
    from .methods import make_agent

    saved = Checkpoints(path / "checkpoint").load(("agent",), precision.device)
    if saved is None:
        raise UserError(f"{path} holds no saved policy yet: let the run reach its first checkpoint")
    manifest, parts = saved
    agent = make_agent(config, action_dim, precision)
    agent.load_networks(parts["agent"])
    return agent, manifest["step"]


def main(arguments: list[str]) -> int:
    options = {"run": "", "episodes": "10", "video": "false", "device": "auto", "seed": "", "threads": "0"}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in options or not value:
            raise UserError(f"argument {argument} is unknown: write key=value with one of {', '.join(options)}; {nearest(key, options)}")
        options[key] = value
    for key, low, high in (("episodes", 1, 10_000), ("seed", 0, 2**31 - 1), ("threads", 0, 1024)):
        if options[key] and not (options[key].isdigit() and low <= int(options[key]) <= high):
            raise UserError(f"{key}={options[key]} must be a whole number between {low} and {high}")
    if options["video"].lower() not in ("true", "false"):
        raise UserError(f"video={options['video']} must be true or false")
    if not options["run"]:
        raise UserError("say which run: python -m DMControl.evaluate run=runs/dmcontrol/<task>/<method>-<preset>/seed<k>")
    path = Path(options["run"])
    config = read_config(path)
    precision = machine.choose_precision(config.precision, machine.choose_device(options["device"]))
    machine.set_threads(int(options["threads"]))
    print(f"renderer: {choose_renderer()}")
    from .env import EVALUATE, Env, Stack

    film = options["video"].lower() == "true"
    # initial states apart from those that the run's own evaluations used, unless the user asks for the same seed
    seed = int(options["seed"]) if options["seed"] else config.seed + 10_000
    env = Env(config.task, config.action_repeat, config.image.size, config.image.shadows, seed, EVALUATE)
    agent, step = load_agent(path, config, env.action_dim, precision)
    episodes = int(options["episodes"])
    stack = Stack(config.image.stack, precision.device)
    results, frames = evaluate(agent, env, stack, episodes, film=int(film), size=VIDEO_SIZE)
    returns = np.array([r["episode_return"] for r in results])
    shared = {"env_step": step * config.action_repeat, "step": step, "seed": seed}
    append_rows(path / "eval.csv", EVAL_COLUMNS, [{**shared, "episode": number, **result} for number, result in enumerate(results)])
    print(f"{config.task} {config.method} at {step * config.action_repeat:,} env steps, {episodes} episodes, seed {seed}:")
    print(f"return {returns.mean():.1f} +- {returns.std():.1f} (min {returns.min():.1f}, max {returns.max():.1f})")
    print(f"each episode: {path / 'eval.csv'}, seed {seed}")
    if film:
        target = path / "video" / f"evaluate_{step:09d}.mp4"
        video(target, frames, round(env_fps(env)))
        print(f"video: {target}")
    return 0


def env_fps(env) -> float:
    """Agent steps per second of simulated time."""
    return 1 / (env.inner.control_timestep() * env.action_repeat)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    run_main(main)
