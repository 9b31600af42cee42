"""Environments in worlds, for the tests of worlds."""

import numpy as np

from DMControl.core.run.config import Config
from DMControl.env import EVALUATE, Env
from DMControl.worlds.catalogue import WORLDS, WorldName
from DMControl.worlds.make import make

NO_FOOTAGE = Config({"video": "", "images": "", "davis": ""})
SIX = ("walker_walk", "cartpole_swingup", "ball_in_cup_catch", "finger_spin", "cheetah_run", "reacher_easy")
DISTRACTING = WorldName("distracting_cs", 0.2)
ALL = [WorldName(w) for w in WORLDS[:-1]] + [DISTRACTING]


def env_in(world, task="walker_walk", size=48, seed=1, stream=EVALUATE, repeat=4):
    return Env(task, repeat, size, False, seed, stream, make(world, NO_FOOTAGE))


def roll(env, steps=4, episode=0):
    """The frames of an episode from its first one on, with its rewards and physics states."""
    rng = np.random.default_rng(0)
    frames, rewards = [env.reset(episode)], []
    states = [env.inner.physics.get_state().copy()]
    for _ in range(steps):
        step = env.step(rng.uniform(-1, 1, env.action_dim))
        frames.append(step.frame)
        rewards.append(step.reward)
        states.append(env.inner.physics.get_state().copy())
    return np.stack(frames), np.array(rewards), np.stack(states)
