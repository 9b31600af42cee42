"""Real games against the official environment's traces."""

import hashlib

import numpy as np
import pytest

from Atari.env import Env, Stack

pytestmark = pytest.mark.golden


def digest(stack):
    return hashlib.sha1(stack.frames.tobytes()).hexdigest()[:16]


def test_traces(golden):
    arrays = golden("atari_env")
    for game in sorted({key.split("/")[0] for key in arrays}):
        trace = {key.split("/", 1)[1]: value for key, value in arrays.items() if key.startswith(f"{game}/")}
        depth, size = trace["reset_obs"].shape[0], trace["reset_obs"].shape[-1]
        env, stack = Env(game, noops=0, size=size), Stack(depth)
        assert env.n_actions == trace["n_actions"]
        stack.start(env.reset())
        same = digest(stack) == str(trace["reset_hash"])
        near(stack, trace["reset_obs"])
        for i, action in enumerate(trace["actions"]):
            step = env.step(action)
            stack.follow(step)
            got = (step.reward, step.done, step.over, step.score, env.lives)
            wanted = tuple(trace[name][i] for name in ("reward", "done", "game_over", "raw_score", "lives"))
            assert got == wanted, f"{game}, step {i}"
            assert abs(stack.frames.mean() - trace["obs_mean"][i]) < 0.5
            if same:  # this OpenCV rounds as the official one did
                assert digest(stack) == str(trace["obs_hash"][i]), f"{game}, step {i}"
            if f"obs_after_step_{i}" in trace:
                near(stack, trace[f"obs_after_step_{i}"])
            if step.over:
                stack.start(env.reset())


def near(stack, wanted):
    """Within one grey level."""
    difference = stack.frames.reshape(wanted.shape).astype(np.int16) - wanted.astype(np.int16)
    assert abs(difference).max() <= 1
