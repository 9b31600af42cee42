"""A toy that is learnt: a bright square that moves as told, and a reward for being at one place."""

import numpy as np
import pytest
import torch
from small_agents import CPU, FP32

from DMControl.agents.world_agent import CONTEXT, grey_levels
from DMControl.core.method.frames import Frames
from DMControl.methods import make_agent
from DMControl.replay import Replay
from DMControl.settings import read_config

LENGTH, GOAL, STRIDE = 20, 0.5, 0.25  # steps of an episode; where the reward is 5; how far an action of 1 moves the square
AHEAD = 10  # steps that are foreseen without pictures
RSSM = ("batch_size=16", "length=8", "filters=4", "stoch=6", "deter=32", "hidden=32", "model_lr=3e-3", "free_nats=1")
OWN = {
    "dreamer": (*RSSM, "horizon=4", "discount=0.9", "actor_lr=3e-4", "value_lr=1e-3"),
    "planet": (*RSSM, "horizon=5", "candidates=60", "elites=8", "iterations=4"),
    "slac": (
        "batch_size=32",
        "model_batch=16",
        "length=4",
        "filters=4",
        "z1=6",
        "z2=16",
        "hidden=64",
        "discount=0.9",
        "lr=1e-3",
        "model_lr=2e-3",
    ),
}
UPDATES = {"dreamer": 500, "planet": 350, "slac": 500}


class Square:
    def __init__(self, place):
        self.place = place

    def frame(self):
        left = round((self.place + 1) / 2 * 44)
        out = np.full((64, 64, 3), 40, np.uint8)
        out[22:42, left : left + 20] = 220
        return out

    def step(self, action):
        self.place = float(np.clip(self.place + STRIDE * action, -1, 1))
        return 5 * (1 - abs(self.place - GOAL))


def wander(agent, episodes=60):
    replay, rng = Replay(2000, LENGTH, 1, 64, 1, CPU, agent.generator), np.random.default_rng(0)
    for _ in range(episodes):
        square = Square(rng.uniform(-1, 1))
        replay.start(square.frame())
        for step in range(LENGTH):
            action = rng.uniform(-1, 1, 1).astype(np.float32)
            reward = square.step(action[0])
            replay.add(action, reward, False, step == LENGTH - 1, square.frame())
    return replay


@torch.no_grad()
def foresee(agent, replay):
    """How far the picture foreseen AHEAD steps later is from the true one, and how far the last picture seen is from it."""
    generator = torch.Generator().manual_seed(0)
    chunk = replay.sample_chunks(64, CONTEXT + AHEAD, generator)
    frames = chunk.obs.whole().unflatten(0, (CONTEXT + AHEAD, 64))
    _, predicted = agent.dream(frames, chunk.action, CONTEXT, generator)
    return grey_levels(predicted[-1], frames[-1]), grey_levels(frames[CONTEXT - 1], frames[-1])


def play(agent, place):
    """Mean reward of the second half of an episode."""
    square, state, rewards = Square(place), agent.begin(1), []
    for _ in range(LENGTH):
        frame = torch.from_numpy(square.frame()).permute(2, 0, 1)[None]
        action, state = agent.act(Frames.of_images(frame), state, explore=False)
        rewards.append(square.step(action[0, 0]))
    return np.mean(rewards[LENGTH // 2 :])


@pytest.mark.parametrize("method", OWN)
def test_a_square_that_moves_as_told_is_learnt(method):
    """Predictions of ten steps without pictures, and a policy or plan that brings the square to its goal from either side."""
    settings = [f"{method}.{setting}" for setting in OWN[method]]
    agent = make_agent(read_config([f"method={method}", "preset=debug", *settings]), 1, FP32)
    replay = wander(agent)
    for _ in range(UPDATES[method]):
        agent.update(replay, 0)
    error, still = foresee(agent, replay)
    assert error < 0.8 * still
    assert play(agent, -0.9) > 4 and play(agent, 0.9) > 4  # a square that is always pushed one way gets 2.5
