"""Judge a policy: full episodes, no exploration, an environment of its own.

python -m DMControl.evaluate run=runs/dmcontrol/cartpole_swingup/mlr-small/seed1 episodes=10 video=true
python -m DMControl.evaluate run=RUN_DIR worlds=clean,color_easy,color_hard,video_easy,video_hard,distracting_cs intensities=0.1,0.5

episodes: in each world (default: as many as the run's own evaluations have, 10 at least); worlds: where to judge it (default: the world
of its training); intensities: of distracting_cs (default: all eight); data.video, data.davis: folders of footage (default: the run's).
Each episode is a row of eval.csv; of several worlds, a table and a bar plot are left in the run folder.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .core import machine
from .core.errors import UserError, run_main
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.evaluation import for_acting, load_policy, read_request, report, spread
from .core.run.timed_env import TimedEnv
from .core.run.writers import append_rows, video
from .env import EVALUATE, TRAIN, Env, Stack
from .logger import Logger, columns
from .methods import make_agent
from .renderer import choose_renderer
from .settings import CONFIGS, GYM, RANGES, worlds_of
from .tasks import ARM
from .worlds.catalogue import INTENSITIES, WorldName, check_data, label, world_names
from .worlds.make import make as make_world

VIDEO_SIZE = 256


def run_episode(
    agent: Agent, env: Env, stack: Stack, episode: int, elsewhere: bool, size: int | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields each step's reward and frame (of `size` pixels if given, else as the agent sees it)."""
    frame = env.reset(episode)
    stack.start(frame)
    state = agent.begin(1)
    while not env.over:
        actions, state = agent.act(stack.observation(), state, explore=False, elsewhere=elsewhere)
        step = env.step(actions[0])
        stack.push(step.frame)
        yield step.reward, env.render(size) if size else step.frame


def evaluate(
    agent: Agent,
    env: Env,
    stack: Stack,
    episodes: int,
    elsewhere: bool,
    first: int = 0,
    film: int = 0,
    size: int | None = None,
    stop: Callable[[], bool] = bool,
) -> tuple[list[dict[str, float]], list[np.ndarray]] | None:
    """Returns of `episodes` episodes numbered from `first`, and the frames of the first `film` of them; None if stopped.

    elsewhere: the environment is a world other than that of the agent's training.
    """
    results, frames = [], []
    for number in range(episodes):
        total, length = 0.0, 0
        for reward, frame in run_episode(agent, env, stack, first + number, elsewhere, size if number < film else None):
            total, length = total + reward, length + 1
            if number < film:
                frames.append(frame)
            if stop():
                return None
        results.append({"episode_return": total, "episode_length": length})
    return results, frames


def make_env(config: Config, seed: int, stream: int, world: WorldName) -> Env:
    """With a time limit on each of its calls, in a thread of its own; env_timeout=0: without."""
    make = partial(new_env, config, seed, stream, world)
    return TimedEnv(make, config.env_timeout) if config.env_timeout else make()


def new_env(config: Config, seed: int, stream: int, world: WorldName) -> Env:
    if config.task.startswith(GYM):
        from .gym_env import GymEnv  # imports Gymnasium

        if world.name != "clean":
            raise UserError(f"world {world} is for tasks of the suite: task={config.task} has only the clean one")
        return GymEnv(config, seed, stream)
    image, scene = config.image, make_world(world, config.data, training=stream == TRAIN)
    model = config.ur5e.model if config.task == ARM else ""
    return Env(config.task, config.action_repeat, image.size, image.shadows, seed, stream, scene, model)


def load_agent(path: Path, config: Config, action_dim: int, precision: machine.Precision) -> tuple[Agent, int]:
    """The newest saved agent of a run, and its agent step."""
    return load_policy(path, lambda: make_agent(for_acting(config), action_dim, precision), precision)


def main(arguments: list[str]) -> int:
    folders = {"data.video": "", "data.davis": ""}
    more = folders | {"worlds": "", "intensities": ",".join(f"{i:g}" for i in INTENSITIES)}
    example = "python -m DMControl.evaluate run=runs/dmcontrol/<task>/<method>-<preset>/seed<k>"
    request = read_request(arguments, example, CONFIGS, RANGES, more)
    path, config, options, precision, seed = request.path, request.config, request.options, request.precision, request.seed
    episodes = request.episodes or max(10, config.eval.episodes)
    config["data"].update({k.removeprefix("data."): options[k] for k in folders if options[k]})
    check_data(config.data, ("video", "davis"))  # overlay images are for training
    chosen = options["worlds"].split(",") if options["worlds"] else [config.world]
    wanted = world_names(chosen, options.numbers("intensities") if options["worlds"] else [config.intensity])  # else the run's own
    print(f"renderer: {choose_renderer()}")
    for world in wanted:  # a world that lacks something fails before the first episode
        make_world(world, config.data)
    env = make_env(config, seed, EVALUATE, wanted[0])
    agent, step = load_agent(path, config, env.action_dim, precision)
    stack = Stack(config.image.stack, precision.device)
    env_step = step * config.action_repeat
    print(f"{config.task} {config.method} at {env_step:,} env steps, {episodes} episodes, seed {seed}:")
    found = []
    for number, world in enumerate(wanted):
        env = make_env(config, seed, EVALUATE, world) if number else env
        results, frames = evaluate(agent, env, stack, episodes, world != worlds_of(config)[0], film=int(request.film), size=VIDEO_SIZE)
        returns = np.array([r["episode_return"] for r in results])
        shared = {"env_step": env_step, "step": step, "seed": seed, **columns(world, config.data)}
        rows = [{**shared, "episode": number, **result} for number, result in enumerate(results)]
        append_rows(path / "eval.csv", Logger.EVAL_COLUMNS, rows)
        where = "" if len(wanted) == 1 and world.name == "clean" else f"{label(world, config.data)}: "
        print(f"{where}return {spread(returns)}", flush=True)
        found.append((label(world, config.data), returns))
        if request.film:
            target = path / "video" / (f"evaluate_{step:09d}.mp4" if len(wanted) == 1 else f"evaluate_{step:09d}_{world}.mp4")
            video(target, frames, round(env.fps))
            print(f"video: {target}")
        env.close()
    print(f"each episode: {path / 'eval.csv'}, seed {seed}")
    if len(wanted) > 1:
        for target in report(
            path, f"{config.task}, {title(config)}, {env_step:,} env steps, {episodes} episodes, 1 seed", step, found, "world"
        ):
            print(f"of all worlds: {target}")
    return 0


def title(config: Config) -> str:
    """The method; and where its overlay images came from, if it had any."""
    overlay = "strong_augmentation" in config and config.strong_augmentation.kind == "overlay"
    if not overlay:
        return config.method
    return f"{config.method} ({'overlay images of the user' if config.data.images else 'overlay images procedural'})"


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    run_main(main)
