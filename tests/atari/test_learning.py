"""Rainbow learns a game of a few pixels from scratch, and MLR's loss falls while it does."""

import dataclasses

import numpy as np
import pytest
import torch

from Atari.env import Stack, Step, observations

SIDE, CELL = 5, 4  # a board of 5 x 5 cells of 4 x 4 pixels


class Catch:
    """A ball falls from the top; the paddle at the bottom moves left, stays, or moves right. +1 if caught, else -1."""

    n_actions = 3

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def reset(self):
        self.row, self.column, self.paddle = 0, int(self.rng.integers(SIDE)), SIDE // 2
        return self.frame()

    def frame(self):
        board = np.zeros((SIDE, SIDE, 1), np.uint8)
        board[self.row, self.column] = 255
        board[SIDE - 1, self.paddle] = 160
        return board.repeat(CELL, 0).repeat(CELL, 1)

    def step(self, action):
        self.paddle = min(SIDE - 1, max(0, self.paddle + int(action) - 1))
        self.row += 1
        over = self.row == SIDE - 1
        reward = (1.0 if self.paddle == self.column else -1.0) if over else 0.0
        return Step(self.frame(), reward, reward, over, False, over)


def score(agent, epsilon, games=100):
    """Mean score over games of their own, all played at once; greedy without noise, or at random."""
    agent.settings = dataclasses.replace(agent.settings, eval_epsilon=epsilon)
    dice = torch.Generator().manual_seed(5)
    envs, stacks = [Catch(seed) for seed in range(100, 100 + games)], [Stack(2) for _ in range(games)]
    for env, stack in zip(envs, stacks, strict=True):
        stack.start(env.reset())
    for _ in range(SIDE - 1):  # the ball's way down
        actions, _ = agent.act(observations(stacks, agent.device), agent.begin(games), explore=False, generator=dice)
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        for stack, step in zip(stacks, steps, strict=True):
            stack.push(step.frame)
    assert all(step.over for step in steps)
    return sum(step.reward for step in steps) / games


def train(agent, replay, env, steps, random_steps=600):
    """Act, store, update twice; the metrics of every update."""
    history = []
    for _ in range(steps):
        action = agent.random_action() if replay.added < random_steps else agent.act(replay.newest(), agent.begin(1), explore=True)[0][0]
        outcome = env.step(action)
        replay.add(action, outcome)
        if outcome.over:
            replay.start(env.reset())
        if replay.added >= random_steps:
            history += [agent.update(replay, replay.added).metrics for _ in range(2)]
    return history


def own_and_foreign(agent, replay):
    """Distance of the predictions to the targets of their own window, and to those of another."""
    objective, seen = agent.objective, []
    (part,) = objective.parts(replay.sample(32, 1.0).sequence, agent.generator)
    compare = objective.compare
    objective.compare = lambda predicted, targets: seen.append((predicted, targets)) or compare(predicted, targets)
    with torch.no_grad():
        objective.loss(part)
    objective.compare = compare
    predicted, targets = seen[0]
    return compare(predicted, targets).mean().item(), compare(predicted, targets.roll(1, 0)).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("mlr", [False, True], ids=["baseline", "mlr"])
def test_learns_to_catch(make_agent, attach_mlr, make_replay, mlr):
    torch.set_num_threads(1)  # the network is too small to share out
    agent = make_agent(
        n_actions=3, size=SIDE * CELL, stack=2, layers=((16, 4, 4), (32, 3, 1)), names=("intensity",), batch_size=32, n_step=3,
        hidden=64, lr=1e-3, v_min=-1.5, v_max=1.5, atoms=21, learning_steps=(200, 1500), seed=1,
    )  # fmt: skip
    if mlr:
        attach_mlr(agent, window=4, patch=4, block=2, width=32, weight=1.0)
    replay, env = make_replay(capacity=2000, size=SIDE * CELL, stack=2, window=4, n_step=3, discount=0.99), Catch(seed=1)
    assert score(agent, epsilon=1.0) < -0.4
    assert score(agent, epsilon=0.0) < 0.2
    replay.start(env.reset())
    history = train(agent, replay, env, 700)
    while (reached := score(agent, epsilon=0.0)) <= 0.8 and replay.added < 1400:
        history += train(agent, replay, env, 50)
    assert reached > 0.8
    if mlr:
        first, last = (torch.stack([m["loss/mlr"] for m in part]).mean().item() for part in (history[:3], history[-50:]))
        assert 0 < last < 0.3 * first
        own, foreign = own_and_foreign(agent, replay)
        assert own < 0.7 * foreign, (own, foreign)  # it tells one window from another
