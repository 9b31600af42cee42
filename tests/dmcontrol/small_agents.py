"""Small agents of every method, and what their tests look at."""

import numpy as np
import torch

from DMControl.agents.critic_loss import Transitions
from DMControl.core.machine import Precision
from DMControl.methods import make_agent
from DMControl.replay import Replay
from DMControl.settings import read_config

CPU = torch.device("cpu")
FP32 = Precision(CPU, torch.float32)


def make(method, *arguments, action_dim=2):
    config = read_config(["preset=debug", f"method={method}", "task=walker_walk", *arguments])
    return make_agent(config, action_dim, FP32), config


def fill(agent, config, steps=60, seed=0):
    size, rng = config.image.size, np.random.default_rng(seed)
    replay = Replay(500, 20, config.image.stack, size, 2, CPU, agent.generator)
    for t in range(steps):
        if t % 20 == 0:
            replay.start(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), float(rng.random()), False, t % 20 == 19, frame)
    return replay


def part_of(agent, config, n=6):
    g = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (n, 9, config.image.crop, config.image.crop), generator=g, dtype=torch.uint8)
    return Transitions(image, torch.rand(n, 2, generator=g) * 2 - 1, torch.randn(n, 1, generator=g), slice(0, n))


def grads(module):
    return [p.grad for p in module.parameters()]


def state(agent):
    modules = (agent.critic, agent.actor, agent.target, agent.pixels, agent.objective)
    return torch.cat([p.detach().flatten() for m in modules if m is not None for p in m.parameters()])
