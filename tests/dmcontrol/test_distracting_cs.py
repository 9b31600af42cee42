"""The Distracting Control Suite: its camera, its colours, its videos."""

import numpy as np
import pytest
from world_envs import SIX, env_in

from DMControl.env import EVALUATE, Env
from DMControl.worlds.camera import Camera, cartesian
from DMControl.worlds.catalogue import INTENSITIES, WorldName
from DMControl.worlds.make import BACKGROUNDS


def test_each_intensity_is_its_own():
    """Its own range of camera, colours and videos; what it shows differs from every other's."""
    first = {}
    for intensity in INTENSITIES:
        env = env_in(WorldName("distracting_cs", intensity), size=32)
        first[intensity] = env.reset(0)
        world = env.world
        assert len(world.videos) == BACKGROUNDS.get(intensity, 60) and world.intensity == intensity
        assert world.camera.angle == pytest.approx(np.pi / 2 * intensity)
        assert (world.camera.nearer, world.camera.farther) == pytest.approx((1 - 0.5 * intensity, 1 + 1.5 * intensity))
        env.close()
    frames = list(first.values())
    assert all(not np.array_equal(a, b) for i, a in enumerate(frames) for b in frames[:i])
    assert [BACKGROUNDS.get(i, 60) for i in INTENSITIES] == [2, 2, 4, 6, 8, 60, 60, 60]


def test_colours_and_camera_stay_in_their_ranges_and_wander():
    s, env = 0.3, env_in(WorldName("distracting_cs", 0.3), size=16)
    world, model = env.world, env.inner.physics.model
    colours = model.mat_rgba[:, :3].copy()
    changes, rolls, radii, seen = [], [], [], []
    for episode in range(4):
        env.reset(episode)
        for _ in range(60):
            before, at = world.now.copy(), world.camera.at.copy()
            world.tick()
            assert np.array_equal(before, world.now) and np.array_equal(at, world.camera.at)  # every second step only
            world.tick()
            assert (np.abs(world.now - colours) <= s + 1e-6).all() and world.now.min() >= 0 and world.now.max() <= 1
            changes.append(world.now - before)
            home, now = world.camera.home, world.camera.at
            assert (1 - 0.5 * s) * home[0] - 1e-9 <= now[0] <= (1 + 1.5 * s) * home[0] + 1e-9
            assert np.abs(now[1:] - home[1:]).max() <= np.pi / 2 * s + 1e-9 and 0 <= now[2] <= np.pi / 2
            moved = np.linalg.norm(cartesian(now) - cartesian(at))
            assert moved <= 0.4 * s * home[0] / 4 * 1.01  # the ranges may bend a move along them
            rolls.append(world.camera.roll)
            radii.append(now[0] / home[0])
        env.render()
        seen.append(model.mat_rgba[:, :3].copy())
        np.testing.assert_allclose(model.mat_rgba[:, :3], world.now, atol=1e-6)
    free = np.abs(np.array(changes)) > 0
    assert np.array(changes)[free].std() == pytest.approx(0.03 * s, rel=0.15)
    assert np.ptp(radii) > 0.05 and np.ptp(rolls) > 0.1 and np.abs(rolls).max() <= np.pi / 2 * s
    assert all(not np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert model.mat_rgba[model.name2id("grid", "material"), 3] == 1  # the walker's floor stays


def test_an_episode_begins_with_colours_drawn_evenly_within_their_bounds():
    """The bounds are cut at 0 and 1 before the draw, so that no colour piles up there."""
    s, env = 0.5, env_in(WorldName("distracting_cs", 0.5), size=16)
    own = env.inner.physics.model.mat_rgba[:, :3].copy()
    low, high = (own - s).clip(0, 1), (own + s).clip(0, 1)
    env.reset(0)
    drawn = []
    for episode in range(200):
        env.world.start(np.random.default_rng(episode), episode)
        drawn.append((env.world.now - low) / (high - low))
    drawn = np.stack(drawn)
    assert drawn.min() > 0 and drawn.max() < 1
    assert np.abs(drawn.mean(0) - 1 / 2).max() < 0.1 and np.abs(drawn.std(0) - 12**-0.5).max() < 0.05


# --- the camera


def beginning(task, intensity, episode=0):
    """An environment at the start of an episode, unseen, and a camera for it."""
    env = Env(task, 4, 16, False, 1, EVALUATE)
    env._start(episode)
    camera, rng = Camera(intensity, upper_only="reacher" not in task), np.random.default_rng(episode)
    camera.start(env.inner.physics, rng)
    return env, env.inner.physics, camera, rng


@pytest.mark.parametrize("intensity", [0.0, 1e-6])
@pytest.mark.parametrize("task", SIX)
def test_without_intensity_the_camera_is_the_suites(task, intensity):
    """At the reset and after 50 steps."""
    env, physics, camera, rng = beginning(task, intensity)
    for step in range(51):
        if step in (0, 50):
            for ours, own in zip(camera.pose(physics), (physics.data.cam_xpos[0], physics.data.cam_xmat[0]), strict=True):
                np.testing.assert_allclose(ours, own, rtol=0, atol=1e-12 if not intensity else 1e-4)
        env._advance(rng.uniform(-1, 1, env.action_dim))
        camera.move(rng)


@pytest.mark.parametrize("task", SIX)
def test_a_fixed_camera_stays_and_a_tracking_one_follows(task):
    """What the agent does changes nothing of a fixed camera's pose, and of a tracking one's the position alone."""
    env, physics, camera, rng = beginning(task, 0.3)
    position, axes = camera.pose(physics)
    centre = physics.data.subtree_com[1].copy()
    for _ in range(20):
        env._advance(rng.uniform(-1, 1, env.action_dim))
    later, axes_later = camera.pose(physics)
    followed = physics.data.subtree_com[1] - centre if task in ("walker_walk", "cheetah_run") else np.zeros(3)
    np.testing.assert_allclose(later, position + followed, atol=1e-12)
    np.testing.assert_allclose(axes_later, axes, atol=1e-12)
    assert np.linalg.norm(physics.data.subtree_com[1] - centre) > 1e-3


@pytest.mark.parametrize("task", ["walker_walk", "reacher_easy"])
def test_the_camera_looks_where_the_suites_looks(task):
    """Its axes are a rotation whose last one points away from what the suite's own camera looks at."""
    _, physics, camera, rng = beginning(task, 0.5)
    for _ in range(5):
        camera.move(rng)
    position, axes = camera.pose(physics)
    axes, own = axes.reshape(3, 3), physics.data.cam_xmat[0].reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    far = np.linalg.norm(physics.data.cam_xpos[0] - physics.data.subtree_com[1])
    towards = physics.data.cam_xpos[0] - far * own[:, 2] - position
    np.testing.assert_allclose(-axes[:, 2], towards / np.linalg.norm(towards), atol=1e-12)


def test_an_episode_begins_with_a_camera_in_motion():
    """A random velocity and roll velocity, and one step of the walk."""
    _, physics, camera, _ = beginning("walker_walk", 0.2)
    camera.speed_std = camera.roll_std = 0.0
    speeds, rolls = [], []
    for seed in range(60):
        camera.start(physics, np.random.default_rng(seed))
        speeds.append(np.linalg.norm(camera.velocity))
        rolls.append(camera.roll_velocity)
    fastest = 0.4 * 0.2 * camera.home[0] / 4
    assert min(speeds) > 0 and max(speeds) <= fastest * 1.01 and np.std(speeds) > 0.1 * fastest
    assert min(rolls) < -0.5 * camera.roll_max and max(rolls) > 0.5 * camera.roll_max
    moves = []
    camera.move = moves.append
    camera.start(physics, np.random.default_rng(0))
    assert len(moves) == 1


@pytest.mark.parametrize(
    ("task", "left", "right", "travel"),
    [
        ("cartpole_swingup", -1.13, 1.13, (0.1, 0.6)),
        ("ball_in_cup_catch", -0.54, 0.69, (0.02, 0.3)),
        ("walker_walk", -0.49, 0.53, (1.0, 8.0)),
        ("finger_spin", -0.47, -0.43, (0.02, 0.3)),
    ],
)
def test_the_agent_moves_across_the_picture_as_in_the_published_world(task, left, right, travel):
    """How far, in half-widths, the agent's first body comes at intensity 0.025 under actions of -1 and 1; how far the camera goes."""
    across, gone = [], []
    for episode in range(3):
        env, physics, camera, rng = beginning(task, 0.025, episode)
        first, _ = camera.pose(physics)
        for step in range(250):
            env._advance(np.full(env.action_dim, 1 if step // 10 % 2 == 0 else -1))
            camera.move(rng)
            camera.move(rng)
            position, axes = camera.pose(physics)
            x, _, z = axes.reshape(3, 3).T @ (physics.data.xpos[1] - position)
            across.append(x / -z / np.tan(np.deg2rad(physics.model.cam_fovy[0] / 2)))
            gone.append(np.linalg.norm(position - first))
            if env.over:
                break
    assert min(across) == pytest.approx(left, abs=0.15) and max(across) == pytest.approx(right, abs=0.15)
    assert travel[0] < max(gone) < travel[1]


# --- its videos


def test_videos_go_to_and_fro():
    env = env_in(WorldName("distracting_cs", 0.1), size=16)
    env.reset(0)
    world, visited = env.world, []
    world.shown, world.direction = len(world.video) - 3, 1
    for _ in range(16):
        world.tick()
        visited.append(world.shown - len(world.video))
    assert visited[1::2] == [-2, -1, -2, -3, -4, -5, -6, -7]
