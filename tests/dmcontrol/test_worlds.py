"""Worlds: what they change, what they leave alone, and that a seed gives the same pixels."""

import numpy as np
import pytest
from world_envs import ALL, DISTRACTING, SIX, env_in, roll

from DMControl import evaluate as evaluation
from DMControl.env import EVALUATE, TRAIN
from DMControl.settings import read_config
from DMControl.worlds import procedural
from DMControl.worlds.catalogue import WorldName


@pytest.mark.parametrize("task", SIX)
def test_physics_is_untouched_by_a_world(task):
    """The same actions give the same states and rewards in every world, however often the camera looks; only pixels differ."""
    frames, rewards, states = roll(env_in(ALL[0], task, size=32), 3)
    for world in ALL[1:]:
        env = env_in(world, task, size=32)
        other = roll(env, 3)
        assert np.array_equal(other[1], rewards) and np.array_equal(other[2], states), world
        if (task, world.name) != ("reacher_easy", "video_easy"):  # there the camera sees floor alone
            assert not np.array_equal(other[0], frames), world
        position, axes = env.inner.physics.data.cam_xpos[0].copy(), env.inner.physics.data.cam_xmat[0].copy()
        env.render(24)
        assert np.array_equal(position, env.inner.physics.data.cam_xpos[0]) and np.array_equal(axes, env.inner.physics.data.cam_xmat[0])
        env.close()


@pytest.mark.parametrize("world", ALL[1:], ids=str)
def test_same_seed_same_pixels_and_another_seed_others(world):
    one, again = roll(env_in(world)), roll(env_in(world))
    assert np.array_equal(one[0], again[0])
    env = env_in(world)
    roll(env, 2, episode=5)  # what was shown before does not matter
    assert np.array_equal(roll(env)[0], one[0])
    assert not np.array_equal(roll(env, episode=1)[0][0], one[0][0])
    if not world.name.startswith("video"):  # these go through their videos in order, by the number of the episode
        assert not np.array_equal(roll(env_in(world, seed=2))[0][0], one[0][0])


@pytest.mark.parametrize("world", ALL[1:], ids=str)
def test_training_worlds_are_not_test_worlds(world):
    """The same world, to train and to be judged in: no set of colours and no clip is in both."""
    config = read_config(["preset=debug", "method=sac"])
    shown = []
    for stream in (TRAIN, EVALUATE):
        env = evaluation.make_env(config, 1, stream, world)
        scene = env.world
        shown.append({s["sky"].tobytes() for s in scene.settings} if world.name.startswith("color") else {id(v) for v in scene.videos})
        env.close()
    assert len(shown[0]) == len(shown[1]) and not shown[0] & shown[1]
    clips = [procedural.Clip("video_easy", n).frame(0) for n in (0, procedural.TRAINING)]
    assert not np.array_equal(*clips)


@pytest.mark.parametrize("world", [WorldName("color_hard"), WorldName("video_hard"), DISTRACTING], ids=str)
def test_an_environment_comes_back_to_where_it_was(world):
    """Restored from its state, an environment goes on with the same pixels: a world resumes with the run."""
    env, rng = env_in(world), np.random.default_rng(1)
    env.reset(3)
    for _ in range(3):
        env.step(rng.uniform(-1, 1, env.action_dim))
    other = env_in(world)
    other.load_state_dict(env.state_dict())
    assert np.array_equal(env.render(), other.render())
    for _ in range(3):
        action = rng.uniform(-1, 1, env.action_dim)
        assert np.array_equal(env.step(action).frame, other.step(action).frame)
