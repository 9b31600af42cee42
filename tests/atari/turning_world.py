"""A game whose latents turn: a frame's colour tells the angle, an action raises it, and the next latent is known exactly."""

import numpy as np
import torch
from torch import nn

from Atari.env import Step
from tests.turning import Angle


def know(objective, dynamics, **others) -> None:
    """Give an objective the world's own target encoder and dynamics, and heads that change nothing."""
    objective.target_encoder = Angle()
    objective.projection = nn.Identity()
    objective.prediction = objective.target_projection = nn.Identity()
    for name, function in {"dynamics": dynamics, **others}.items():
        getattr(objective, name).forward = function


def raised(action):
    """By how many levels a one-hot action raises the colour."""
    return action @ (10.0 * torch.arange(action.shape[1], dtype=torch.float32))


def play(replay, size, steps=150, length=12):
    """Games in which action a raises the colour by 10 a; each begins at a colour of its own."""
    rng = np.random.default_rng(0)
    frame = lambda colour: np.full((size, size, 1), colour % 250, np.uint8)  # noqa: E731
    for t in range(steps):
        if t % length == 0:
            colour = int(rng.integers(250))
            replay.start(frame(colour))
        action, over = int(rng.integers(4)), t % length == length - 1
        colour += 10 * action
        replay.add(action, Step(frame(colour), 0.0, 0.0, over, False, over))


def windows_of(agent, replay, n=64):
    """A part of n windows with the latents of their first observations."""
    sequence = replay.sample(n, 0.5).sequence
    first = sequence.obs[:: agent.objective.window].whole()
    object.__setattr__(sequence, "state", Angle()(first))
    return agent.objective.draw(sequence, agent.generator)
