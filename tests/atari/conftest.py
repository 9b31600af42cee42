"""The published settings, and small agents built from them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from Atari.agents.rainbow import Rainbow
from Atari.agents.settings import Settings
from Atari.core.machine import Precision
from Atari.core.method.augment import Augmentation
from Atari.core.method.encoder import Trunk
from Atari.core.method.masks import Masks
from Atari.env import Step
from Atari.methods import mlr
from Atari.replay import Replay

CPU = torch.device("cpu")
SETTINGS = dict(
    batch_size=32, lr=1e-4, adam_eps=1.5e-4, clip=10.0, discount=0.99, n_step=10, atoms=51, v_min=-10.0, v_max=10.0, hidden=256,
    noisy_std=0.1, beta=(0.4, 1.0), learning_steps=(2_000, 100_000),
)  # fmt: skip
SMALL = dict(size=24, stack=2, layers=((6, 4, 4), (8, 3, 1)), batch_size=8, n_step=3, hidden=12, atoms=7)
OBJECTIVE = ("weight", "objective_lr", "width", "tau", "chunk", "fill")  # what `setup` hands on to MLR
MLR = dict(
    depth=2, width=0, heads=1, mlp_ratio=2.0, final_norm=False, tau=1.0, action_tokens=True, one_mask=True, masked_input_0_255=True
)  # fmt: skip


@pytest.fixture
def make_agent():
    """make_agent(size=84, ...) gives Rainbow on square frames; `layers` are (filters, kernel, stride)."""
    published = ((32, 8, 4), (64, 4, 2), (64, 3, 1))

    def make(n_actions=4, size=84, stack=4, seed=0, layers=published, names=("shift", "intensity"), dtype=torch.float32, **settings):
        torch.manual_seed(seed)
        trunk = Trunk(stack, size, *zip(*layers, strict=True), Precision(CPU, dtype))
        return Rainbow(
            Settings(**(SETTINGS | settings)),
            n_actions=n_actions,
            trunk=trunk,
            augment=Augmentation(names, size, size),
            generator=torch.Generator().manual_seed(seed),
            device=CPU,
        )

    return make


@pytest.fixture
def attach_mlr():
    """attach_mlr(agent, window=16, patch=12, block=8, weight=1, ...) gives it the objective."""

    def attach(agent, window=16, patch=12, block=8, weight=1.0, objective_lr=None, **settings):
        size = agent.augment.size
        masks = Masks(window, size, patch, block, 0.5, count_kept=True)
        objective = mlr.make(agent.handles, masks=masks, augment=agent.augment, **(MLR | settings))
        agent.attach(objective, weight, objective_lr)
        return objective

    return attach


@pytest.fixture
def make_replay():
    def make(capacity=1000, size=4, stack=4, window=4, n_step=3, discount=0.9, alpha=0.5, seed=0, **quirks):
        return Replay(
            capacity, size=size, stack=stack, window=window, n_step=n_step, discount=discount, alpha=alpha, device=CPU,
            generator=torch.Generator().manual_seed(seed), **quirks,
        )  # fmt: skip

    return make


@pytest.fixture
def story():
    """story(ends, size) plays episodes into a replay: each number in `ends` is how the step ended.

    0: goes on, 1: life lost, 2: game over. Frame j is filled with j + 1 (mod 251, never 0), so that it can be told apart.
    """

    def play(replay, ends, rewards=None, actions=None):
        log = SimpleNamespace(frame=[], age=[], action=[], reward=[], done=[])
        rng = np.random.default_rng(len(ends))
        age, fresh = 0, True
        for j, end in enumerate(ends):
            frame = np.full((*replay.store.frames.shape[2:], 1), j % 250 + 1, np.uint8)
            following = np.full_like(frame, (j + 1) % 250 + 1)
            if fresh:
                replay.start(frame)
            action = int(actions[j]) if actions is not None else int(rng.integers(5))
            reward = float(rewards[j]) if rewards is not None else float(rng.integers(-1, 2))
            replay.add(action, Step(following, reward, reward, end > 0, end == 1, end == 2))
            for name, value in dict(frame=j % 250 + 1, age=age, action=action, reward=reward, done=end > 0).items():
                getattr(log, name).append(value)
            fresh, age = end == 2, 0 if end else age + 1
        return log

    return play


@pytest.fixture
def setup(make_agent, attach_mlr, make_replay, story):
    """An agent and a replay of noise with ends of all kinds."""

    def make(mlr=True, seed=0, **settings):
        agent = make_agent(seed=seed, **(SMALL | {k: v for k, v in settings.items() if k not in OBJECTIVE}))
        if mlr:
            attach_mlr(agent, window=4, patch=8, block=2, **{k: settings[k] for k in OBJECTIVE if k in settings})
        replay = make_replay(capacity=200, size=24, stack=2, window=4, n_step=3, seed=seed)
        story(replay, ([0] * 9 + [1] + [0] * 6 + [2]) * 6, actions=np.arange(102) % 4)
        frames = replay.store.frames[:-1]
        frames[:] = torch.randint(256, frames.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        replay.update_priorities(torch.arange(len(replay)), torch.linspace(0.1, 3, len(replay)))
        return agent, replay

    return make


@pytest.fixture
def tiny():
    """make_agent(**tiny): an agent that updates in milliseconds."""
    return SMALL
