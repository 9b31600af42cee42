"""Judge a policy: full games, raw score, epsilon 0.001, noise off, all games in one batched forward pass.

python -m Atari.evaluate run=runs/atari/pong/mlr-paper/seed1 episodes=100
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from . import games
from .core import machine
from .core.errors import run_main
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.evaluation import load_policy, read_request, spread
from .core.run.writers import append_rows, video
from .distraction import Distraction, distractions_of
from .distraction import make as make_background
from .env import EVALUATE, Env, Stack, observations
from .logger import FPS, Logger
from .methods import make_agent
from .settings import CONFIGS, RANGES

FILMED = 4500  # steps of a game that a video holds at most: five minutes


def make_env(config: Config, seed: int, stream: int, distraction: Distraction | None = None) -> Env:
    """The game as a run plays it, by default in its own distraction; an evaluation sees full games and raw scores."""
    env, judged = config.env, stream == EVALUATE
    return Env(
        config.game,
        seed=seed,
        stream=stream,
        noops=env.noops,
        fewest_noops=env.fewest_noops,
        frame_skip=env.frame_skip,
        size=env.size,
        episodic_life=env.episodic_life and not judged,
        clip_reward=env.clip_reward and not judged,
        max_steps=env.max_steps,
        background=make_background(distraction or distractions_of(config)[0], env.distraction_behind, config.data),
    )


def evaluate(
    agent: Agent, config: Config, episodes: int, seed: int, film: bool = False, stop: Callable[[], bool] = bool
) -> tuple[list[dict[str, float]], list[np.ndarray]] | None:
    """Score and length of `episodes` full games, side by side, and the pictures of the first; None if stopped."""
    generator = torch.Generator().manual_seed(seed)
    envs = [make_env(config, seed, EVALUATE) for _ in range(episodes)]
    stacks = [Stack(config.env.stack) for _ in envs]
    for number, (env, stack) in enumerate(zip(envs, stacks, strict=True)):
        stack.start(env.reset(number))
    pictures = [envs[0].render()] if film else []
    playing, state = list(range(episodes)), agent.begin(episodes)
    while playing:
        if stop():
            return None
        obs = observations([stacks[i] for i in playing], agent.generator.device)
        actions, state[playing] = agent.act(obs, state[playing], explore=False, generator=generator)
        for i, action in zip(playing, actions, strict=True):
            stacks[i].follow(envs[i].step(action))
            if film and i == 0 and len(pictures) < FILMED:
                pictures.append(envs[0].render())
        playing = [i for i in playing if not envs[i].over]
    return [{"episode_return": env.score, "episode_length": env.steps} for env in envs], pictures


def load_agent(path: Path, config: Config, n_actions: int, precision: machine.Precision) -> tuple[Agent, int]:
    """The newest saved agent of a run, and its agent step."""
    return load_policy(path, lambda: make_agent(config, n_actions, precision), precision)


def main(arguments: list[str]) -> int:
    example = "python -m Atari.evaluate run=runs/atari/<game>/<method>-<preset>/seed<k>"
    request = read_request(arguments, example, CONFIGS, RANGES, {})
    path, config, seed, episodes = request.path, request.config, request.seed, request.episodes or 100
    agent, step = load_agent(path, config, make_env(config, seed, EVALUATE).n_actions, request.precision)
    results, pictures = evaluate(agent, config, episodes, seed, request.film)
    frame = step * config.env.frame_skip
    scores = np.array([r["episode_return"] for r in results])
    rows = []
    for number, result in enumerate(results):
        normalized = games.human_normalized(config.game, result["episode_return"])
        rows.append({"frame": frame, "step": step, "seed": seed, "episode": number, "human_normalized": normalized, **result})
    append_rows(path / "eval.csv", Logger.EVAL_COLUMNS, rows)
    print(f"{config.game} {config.method} at {frame:,} frames, {episodes} games, seed {seed}:")
    print(f"score {spread(scores)}")
    normalized = games.human_normalized(config.game, float(scores.mean()))
    print(f"human-normalised score {normalized:.3f}" if normalized is not None else "no human score is published for this game")
    print(f"each game: {path / 'eval.csv'}, seed {seed}")
    if request.film:
        target = path / "video" / f"evaluate_{step:09d}.mp4"
        video(target, pictures, FPS)
        print(f"video: {target}")
    return 0


if __name__ == "__main__":
    run_main(main)
