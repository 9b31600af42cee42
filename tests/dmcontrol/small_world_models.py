"""What the tests of the agents with a world model share."""

from types import SimpleNamespace

import torch

from DMControl.core.method.frames import Frames
from DMControl.train import Trainer


def seen(agent, n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Frames.of_images(torch.randint(0, 256, (n, 3, 64, 64), generator=g, dtype=torch.uint8))


def updates_of(config):
    """The updates after each agent step of a run, and which of its actions are random."""
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.repeat, trainer.step, trainer.episode = config, config.action_repeat, 0, 0
    trainer.agent, trainer.env = SimpleNamespace(updates=0), SimpleNamespace(over=False)
    due, random = [], []
    while trainer.at < config.env_steps:
        random.append(trainer.counts()[1] < config.train.random_steps)
        trainer.step += 1
        trainer.env.over = trainer.step % (1000 // config.action_repeat) == 0
        due.append(trainer.updates_due())
        trainer.agent.updates += due[-1]
        trainer.episode += trainer.env.over
        trainer.env.over = False
    return due, random
