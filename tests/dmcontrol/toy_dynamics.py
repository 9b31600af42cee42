"""A world whose latents turn: a frame's colour tells the angle, an action adds to it, and the next latent is known exactly."""

import numpy as np
import torch
from torch import nn

from DMControl.replay import Replay
from tests.turning import Angle

CPU = torch.device("cpu")


def know(objective, dynamics, **others) -> None:
    """Give an objective the world's own encoder and dynamics, and heads that change nothing."""
    objective.encoder = objective.target_encoder = Angle()
    objective.projection = objective.prediction = objective.target_projection = nn.Identity()
    for name, function in {"dynamics": dynamics, **others}.items():
        getattr(objective, name).forward = function


def walk(agent, config, steps=200, length=40, actions=2):
    """A replay of episodes in which an action of a / 10 raises the colour by a levels; its frames are all of one colour."""
    size, rng = config.image.size, np.random.default_rng(0)
    replay = Replay(500, length, 3, size, actions, CPU, agent.generator)
    frame = lambda colour: np.full((size, size, 3), colour, np.uint8)  # noqa: E731
    for t in range(steps):
        if t % length == 0:
            colour = int(rng.integers(40, 210))
            replay.start(frame(colour))
        up = int(rng.integers(max(-10, -colour), min(10, 250 - colour) + 1))
        colour += up
        action = np.zeros(actions, np.float32)
        action[0] = up / 10
        replay.add(action, 0.0, False, t % length == length - 1, frame(colour))
    return replay
