"""Judge a policy: full games, raw score, epsilon 0.001, noise off, all games in one batched forward pass.

python -m Atari.evaluate run=runs/atari/pong/mlr-paper/seed1 episodes=100
python -m Atari.evaluate run=RUN_DIR distractions=none,noise,video strength=0.5

distractions: where to judge it (default: that of its training); strength: of the distractions, and data.video: a folder of footage
(default: the run's). Each game is a row of eval.csv; of several distractions, a table and a bar plot are left in the run folder.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import games
from .core import machine
from .core.errors import UserError, run_main
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.evaluation import for_acting, load_policy, read_request, report, spread
from .core.run.options import Options
from .core.run.timed_env import TimedEnv
from .core.run.writers import append_rows, video
from .distraction import Distraction, check_data, distractions, distractions_of, label
from .distraction import make as make_background
from .env import EVALUATE, Env, Stack, observations
from .logger import FPS, Logger, columns
from .methods import make_agent
from .settings import CONFIGS, GYM, RANGES

FILMED = 4500  # steps of a game that a video holds at most: five minutes


def make_env(config: Config, seed: int, stream: int, distraction: Distraction | None = None) -> Env:
    """The game as a run plays it, by default in its own distraction. Its calls have a time limit, in a thread; env_timeout=0: none."""
    make = partial(new_env, config, seed, stream, distraction)
    return TimedEnv(make, config.env_timeout) if config.env_timeout else make()


def new_env(config: Config, seed: int, stream: int, distraction: Distraction | None = None) -> Env:
    """An evaluation sees full games and raw scores."""
    env, judged = config.env, stream == EVALUATE
    background = make_background(distraction or distractions_of(config)[0], env.distraction_behind, config.data)
    if config.game.startswith(GYM):
        from .gym_env import GymEnv  # makes environments of Gymnasium

        return GymEnv(config, seed, stream, background)
    return Env(
        config.game,
        seed=seed,
        stream=stream,
        noops=env.noops,
        fewest_noops=env.fewest_noops,
        frame_skip=env.frame_skip,
        size=env.size,
        resize=env.resize,
        episodic_life=env.episodic_life and not judged,
        clip_reward=env.clip_reward and not judged,
        max_steps=env.max_steps,
        background=background,
    )


class Outcome(NamedTuple):
    results: list[dict[str, float]]  # score and length of each game
    pictures: list[np.ndarray]  # of the first game, if it was filmed
    masks: dict[str, Tensor]  # the last frame of a game, and what the networks see of it


def evaluate(
    agent: Agent,
    config: Config,
    episodes: int,
    seed: int,
    film: bool = False,
    stop: Callable[[], bool] = bool,
    distraction: Distraction | None = None,
) -> Outcome | None:
    """Play `episodes` full games side by side, by default in the distraction of the training; None if stopped."""
    generator = torch.Generator().manual_seed(seed)
    elsewhere = distraction not in (None, distractions_of(config)[0])
    envs = [make_env(config, seed, EVALUATE, distraction) for _ in range(episodes)]
    stacks = [Stack(config.env.stack) for _ in envs]
    for number, (env, stack) in enumerate(zip(envs, stacks, strict=True)):
        stack.start(env.reset(number))
    pictures = [envs[0].render()] if film else []
    playing, state = list(range(episodes)), agent.begin(episodes)
    while playing:
        if stop():
            return None
        obs = observations([stacks[i] for i in playing], agent.generator.device)
        actions, state[playing] = agent.act(obs, state[playing], explore=False, generator=generator, elsewhere=elsewhere)
        for i, action in zip(playing, actions, strict=True):
            stacks[i].follow(envs[i].step(action))
            if film and i == 0 and len(pictures) < FILMED:
                pictures.append(envs[0].render())
        playing = [i for i in playing if not envs[i].over]
    results = [{"episode_return": env.score, "episode_length": env.steps} for env in envs]
    return Outcome(results, pictures, agent.seen(obs[:1], elsewhere))


def load_agent(path: Path, config: Config, n_actions: int, precision: machine.Precision) -> tuple[Agent, int]:
    """The newest saved agent of a run, and its agent step."""
    return load_policy(path, lambda: make_agent(for_acting(config), n_actions, precision), precision)


def main(arguments: list[str]) -> int:
    example = "python -m Atari.evaluate run=runs/atari/<game>/<method>-<preset>/seed<k>"
    request = read_request(arguments, example, CONFIGS, RANGES, {"distractions": "", "strength": "", "data.video": ""})
    path, config, options, seed, episodes = request.path, request.config, request.options, request.seed, request.episodes or 100
    wanted = asked(config, options)
    agent, step = load_agent(path, config, make_env(config, seed, EVALUATE).n_actions, request.precision)
    frame, found = step * config.env.frame_skip, []
    print(f"{config.game} {config.method} at {frame:,} frames, {episodes} games, seed {seed}:")
    for distraction in wanted:
        outcome = evaluate(agent, config, episodes, seed, request.film, distraction=distraction)
        scores = np.array([r["episode_return"] for r in outcome.results])
        shared = {"frame": frame, "step": step, "seed": seed, **columns(distraction, config.data)}
        rows = [
            {**shared, "episode": n, "human_normalized": games.human_normalized(config.game, r["episode_return"]), **r}
            for n, r in enumerate(outcome.results)
        ]
        append_rows(path / "eval.csv", Logger.EVAL_COLUMNS, rows)
        where = "" if len(wanted) == 1 and distraction.name == "none" else f"{label(distraction, config.data)}: "
        print(f"{where}score {spread(scores)}")
        normalized = games.human_normalized(config.game, float(scores.mean()))
        print(f"human-normalised score {normalized:.3f}" if normalized is not None else "no human score is published for this game")
        found.append((label(distraction, config.data), scores))
        if request.film:
            target = path / "video" / (f"evaluate_{step:09d}.mp4" if len(wanted) == 1 else f"evaluate_{step:09d}_{distraction}.mp4")
            video(target, outcome.pictures, FPS)
            print(f"video: {target}")
    print(f"each game: {path / 'eval.csv'}, seed {seed}")
    if len(wanted) > 1:
        heading = f"{config.game}, {config.method}, {frame:,} frames, {episodes} games, 1 seed"
        for target in report(path, heading, step, found, "distraction"):
            print(f"of all distractions: {target}")
    return 0


def asked(config: Config, options: Options) -> list[Distraction]:
    """The distractions that the user asks for, else that of the training. Puts the user's folder into the settings."""
    if options["data.video"]:
        config["data"]["video"] = options["data.video"]
    strength = options.numbers("strength")[0] if options["strength"] else config.env.distraction_strength
    if not 0 <= strength <= 1:
        raise UserError(f"strength={strength:g} must be between 0 and 1")
    names = options["distractions"].split(",") if options["distractions"] else [config.env.distraction]
    wanted = distractions(names, strength)
    check_data(wanted, config.data)
    return wanted


if __name__ == "__main__":
    run_main(main)
