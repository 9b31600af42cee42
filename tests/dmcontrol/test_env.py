"""Real tasks: seeds, action repeat, time limit, resume in mid-episode."""

import numpy as np
import pytest
import torch
from dm_control import suite

from DMControl.core.errors import UserError
from DMControl.env import EVALUATE, TRAIN, Env, Stack
from DMControl.tasks import TASKS

SIX = ("finger_spin", "cartpole_swingup", "reacher_easy", "cheetah_run", "walker_walk", "ball_in_cup_catch")


def make(task="cartpole_swingup", repeat=8, size=32, seed=1, stream=TRAIN, shadows=False) -> Env:
    return Env(task, repeat, size, shadows, seed, stream)


def physics(env: Env) -> np.ndarray:
    return env.inner.physics.get_state().copy()


@pytest.mark.parametrize("task", SIX)
def test_the_six_tasks_render_and_step(task):
    env = make(task, 4)
    frame = env.reset()
    assert frame.shape == (32, 32, 3) and frame.dtype == np.uint8 and frame.std() > 1
    step = env.step(np.zeros(env.action_dim, np.float32))
    assert step.frame.shape == frame.shape and not step.last and 0 <= step.reward <= 4
    assert env.episode_length == 250


def test_no_task_is_made_with_a_warning(caplog):
    """cheetah's model is the one that mujoco has something to say about."""
    make("cheetah_run").close()
    assert not caplog.records


def test_every_suite_task_is_known_by_name():
    assert set(SIX) <= set(TASKS) and sorted(TASKS.values()) == sorted(suite.ALL_TASKS)
    with pytest.raises(UserError, match="did you mean"):
        make("cheeta_run")


def test_time_limit_is_not_an_end_of_the_task():
    env = make(repeat=8)
    env.reset()
    steps = [env.step(np.zeros(1, np.float32)) for _ in range(env.episode_length)]
    assert [s.last for s in steps] == [False] * 124 + [True]
    assert not steps[-1].terminal


def test_reward_is_summed_over_the_repeat():
    one, four = make("walker_walk", 1), make("walker_walk", 4)
    action = np.full(one.action_dim, 0.3, np.float32)
    one.reset()
    four.reset()
    singles = [one.step(action).reward for _ in range(8)]
    assert [four.step(action).reward for _ in range(2)] == pytest.approx([sum(singles[:4]), sum(singles[4:])])
    assert np.array_equal(physics(one), physics(four))


@pytest.mark.parametrize("task", (*SIX, "humanoid_stand", "stacker_stack_2", "quadruped_fetch"))
def test_a_step_is_dm_controls(task):
    """The same states, rewards and ends, though the observation of the true state is left out."""
    env, theirs = make(task, 2), make(task, 2)
    env._start(0), theirs._start(0)
    draw = np.random.default_rng(0)
    for inner in (env.inner, theirs.inner):
        inner._step_limit = 12
    for number in range(6):
        action = draw.uniform(-1, 1, env.action_dim).astype(np.float32)
        scaled = np.clip(env.low + (action.astype(np.float64) + 1) * 0.5 * (env.high - env.low), env.low, env.high)
        found = [theirs.inner.step(scaled) for _ in range(2)]
        reward, terminal = env._advance(action)
        assert reward == sum(float(step.reward or 0) for step in found) and env.over == found[-1].last() == (number == 5)
        assert terminal == (found[-1].last() and found[-1].discount == 0.0)
        assert np.array_equal(physics(env), physics(theirs))


def test_actions_are_scaled_to_the_task():
    env = make("finger_spin")
    env.low, env.high = np.array([-2.0, 0.0]), np.array([2.0, 4.0])
    seen = []
    env._simulate = lambda action: seen.append(action) or (0.0, 1.0)
    for action in ([-1, -1], [0, 0], [1, 1]):
        env._advance(np.array(action, np.float32))
    assert np.allclose(seen, [[-2, 0], [0, 2], [2, 4]])


def test_initial_states_depend_on_seed_stream_and_episode():
    states = {}
    for seed in (1, 2):
        for stream in (TRAIN, EVALUATE):
            env = make(seed=seed, stream=stream)
            for episode in range(3):
                env.reset()
                states[seed, stream, episode] = physics(env).tobytes()
    assert len(set(states.values())) == len(states)
    again = make(seed=2, stream=EVALUATE)
    again.reset(episode=2)
    assert physics(again).tobytes() == states[2, EVALUATE, 2]


@pytest.mark.parametrize("task", ["reacher_easy", "finger_spin", "cheetah_run"])
def test_resume_in_mid_episode_is_exact(task):
    """Tasks that move targets or damping at reset included."""
    rng = np.random.default_rng(0)
    env = make(task, 4)
    actions = rng.uniform(-1, 1, (20, env.action_dim)).astype(np.float32)
    env.reset()
    env.reset()
    for a in actions[:10]:
        env.step(a)
    other = make(task, 4)
    other.load_state_dict(env.state_dict())
    for a in actions[10:]:
        assert env.step(a).reward == other.step(a).reward
        assert np.array_equal(physics(env), physics(other))


def test_stack_repeats_the_first_frame():
    stack = Stack(3, torch.device("cpu"))
    frames = [np.full((4, 4, 3), i, np.uint8) for i in range(4)]
    stack.start(frames[0])
    seen = [stack.observation().whole()[0, ::3, 0, 0].tolist()]
    for f in frames[1:]:
        stack.push(f)
        seen.append(stack.observation().whole()[0, ::3, 0, 0].tolist())
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_frames_are_those_of_dm_control():
    env = make(size=40, shadows=True)
    frame = env.reset()
    theirs = env.inner.physics.render(40, 40, camera_id=0)
    assert np.abs(frame.astype(int) - theirs).max() <= 1


def test_acting_sees_what_the_replay_keeps():
    """The stack of an evaluation and the replay's newest observation are the same pixels, step by step."""
    from DMControl.replay import Replay

    env, stack = make(size=32), Stack(3, torch.device("cpu"))
    replay = Replay(100, env.episode_length, 3, 32, env.action_dim, torch.device("cpu"), torch.Generator())
    frame = env.reset()
    first = frame.copy()
    replay.start(frame)
    stack.start(frame)
    for _ in range(6):
        step = env.step(np.ones(1, np.float32))
        replay.add(np.ones(1, np.float32), step.reward, step.terminal, step.last, step.frame)
        stack.push(step.frame)
        observed = stack.observation().whole()
        assert torch.equal(observed, replay.newest().whole())
        assert not torch.equal(observed[:, :3], observed[:, 6:])  # there is motion in it
    assert np.array_equal(frame, first)  # a frame once given does not change


def test_tasks_without_bounds_are_refused():
    with pytest.raises(UserError, match="no bounds or no time limit"):
        make("lqr_lqr_2_1")
