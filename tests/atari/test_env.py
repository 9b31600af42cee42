"""Real games through fixed sequences of actions."""

import numpy as np
import pytest
import torch

from Atari.core.errors import UserError
from Atari.env import EVALUATE, STARTS, Env, Stack, observations
from Atari.settings import read_config


def play(env, count, seed=0):
    """Fixed pseudo-random actions; resets after a game. All that was seen."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(count):
        step = env.step(int(rng.integers(env.n_actions)))
        seen.append((step.frame.tobytes(), step.reward, step.score, step.done, step.blank, step.over, env.lives))
        if step.over:
            seen.append(env.reset().tobytes())
    return seen


def lose_a_life(env):
    """Breakout: serve, then stand still."""
    for i in range(300):
        step = env.step(1 if i % 20 == 0 else 0)
        if step.done:
            return step
    raise AssertionError("no life was lost")


def test_frames():
    env = Env("Pong")
    frame = env.reset()
    assert frame.shape == (84, 84, 1) and frame.dtype == np.uint8
    step = env.step(0)
    assert step.frame.shape == (84, 84, 1) and step.frame.dtype == np.uint8
    assert env.n_actions == 6  # minimal set
    assert env.render().shape == (210, 160, 3)


def test_life_loss_ends_the_episode_without_a_reset():
    env, stack = Env("breakout", noops=0), Stack(4)
    stack.start(env.reset())
    before = env.steps
    frame_number = env.ale.getEpisodeFrameNumber()
    step = lose_a_life(env)
    stack.follow(step)
    assert (step.done, step.blank, step.over) == (True, True, False)
    assert env.lives == 4 and env.episode == 0
    assert env.ale.getEpisodeFrameNumber() - frame_number == 4 * (env.steps - before) + 1  # one extra no-op
    assert (stack.frames[:3] == 0).all() and (stack.frames[3] == step.frame).all() and step.frame.any()
    following = env.step(0)
    stack.follow(following)
    assert not following.done
    assert (stack.frames[:2] == 0).all() and (stack.frames[2] == step.frame).all() and (stack.frames[3] == following.frame).all()


def test_life_loss_goes_unnoticed_in_evaluation():
    env = Env("breakout", noops=0, episodic_life=False)
    env.reset()
    for i in range(300):
        step = env.step(1 if i % 20 == 0 else 0)
        assert step.done == step.over and not step.blank
        if env.lives < 5:
            break
    assert env.lives == 4


def test_game_over():
    env = Env("breakout", noops=0)
    env.reset()
    steps = [lose_a_life(env) for _ in range(5)]
    assert [step.over for step in steps] == [False] * 4 + [True]
    assert steps[-1].done and not steps[-1].blank and env.lives == 0
    with pytest.raises(UserError, match="reset"):
        env.step(0)
    env.reset()
    assert env.lives == 5 and env.episode == 1 and env.steps == 0 and env.score == 0


def test_cap():
    env = Env("pong", noops=0, max_steps=30)
    env.reset()
    steps = [env.step(0) for _ in range(30)]
    assert [step.over for step in steps] == [False] * 29 + [True]
    assert steps[-1].done and not steps[-1].blank
    env.reset()
    assert not env.step(0).over  # counted anew


def test_cap_counts_the_game_and_not_the_life():
    env = Env("breakout", noops=0, max_steps=120)
    env.reset()
    lose_a_life(env)
    while not env.over:
        env.step(0)
    assert env.steps == 120


def test_published_cap_is_108_000_frames():
    assert Env("pong").max_steps * Env("pong").frame_skip == 108_000


def test_reward_is_the_sign_and_the_score_is_raw():
    env = Env("ms_pacman", noops=0)
    env.reset()
    total, rewards = 0.0, set()
    for _ in range(250):
        step = env.step(2)
        assert step.reward == np.sign(step.score)
        total += step.score
        rewards.add(step.reward)
    assert env.score == total > 10 and rewards == {0.0, 1.0}
    pong = Env("pong", noops=0)
    pong.reset()
    assert {pong.step(0).reward for _ in range(120)} == {0.0, -1.0}
    raw = Env("ms_pacman", noops=0, clip_reward=False)
    raw.reset()
    assert max(raw.step(2).reward for _ in range(250)) >= 10


def test_noops():
    """1 to `noops` of them, from the seed and the episode's number alone."""

    def count(seed, episode, stream=0):
        env = Env("pong", seed=seed, stream=stream)
        env.reset(episode)
        return env.ale.getEpisodeFrameNumber()

    base = Env("pong", noops=0)
    base.reset()
    start = base.ale.getEpisodeFrameNumber()
    env = Env("pong", seed=3)
    drawn = []
    for _ in range(70):
        env.reset()
        drawn.append(env.ale.getEpisodeFrameNumber() - start)
    assert min(drawn) >= 1 and max(drawn) <= 30 and len(set(drawn)) > 20
    assert count(3, 0) - start == drawn[0] and count(3, 7) - start == drawn[7]
    assert len({count(s, 0) for s in range(5)}) > 1
    assert [drawn[e] + start for e in range(4)] != [count(3, e, EVALUATE) for e in range(4)]


def test_the_first_game_begins_with_the_second_reset():
    """The official environment is reset once when it is made."""
    env = Env("assault", noops=0)
    ram = []
    for _ in range(STARTS):
        env.reset()
        ram.append(env.ale.getRAM().tobytes())
    fresh = Env("assault", noops=0)
    fresh.ale.reset_game()
    for number in range(STARTS):  # after the last one the sequence begins again
        if number == STARTS - 1:
            fresh._load()
        fresh.ale.reset_game()
        fresh.ale.act(0)
        assert fresh.ale.getRAM().tobytes() == ram[number], number
    assert len(set(ram)) > 1


def test_no_sticky_actions():
    env = Env("breakout")
    assert env.ale.getFloat("repeat_action_probability") == 0.0


@pytest.mark.parametrize("game", ["assault", "qbert"])  # RAM differs from reset to reset; only parts of the screen are drawn
def test_an_episode_depends_on_its_number_alone(game):
    one, other = Env(game, seed=1), Env(game, seed=1)
    for _ in range(3):
        one.reset()
        play(one, 5, seed=8) if one.episode < 2 else None
    other.reset(2)
    assert play(one, 40) == play(other, 40)
    other.reset(2 + STARTS)
    assert other.loaded == one.loaded


@pytest.mark.parametrize("game, before", [("breakout", 130), ("qbert", 60), ("pong", 10), ("seaquest", 90)])
def test_resumes_in_the_middle(game, before):
    """N + M steps equal N, a save, and M in another process's environment, bit for bit, across game ends."""
    env = Env(game, seed=5)
    env.reset()
    play(env, before, seed=1)
    state = env.state_dict()
    assert all(isinstance(v, (int, torch.Tensor)) for v in state.values())
    other = Env(game, seed=5)
    other.reset()
    play(other, 15, seed=4)  # whatever this console was doing
    other.load_state_dict(state)
    assert (other.score, other.lives, other.steps, other.episode) == (env.score, env.lives, env.steps, env.episode)
    assert play(env, 200, seed=2) == play(other, 200, seed=2)


def test_resumes_before_the_first_reset_and_after_a_game():
    fresh, env = Env("pong", max_steps=3), Env("pong", max_steps=3)
    env.load_state_dict(fresh.state_dict())
    assert (env.reset() == fresh.reset()).all()
    for _ in range(3):
        env.step(0)
    fresh.load_state_dict(env.state_dict())
    assert fresh.over
    assert (fresh.reset() == env.reset()).all() and fresh.episode == 1


def test_observations_of_several_games():
    stacks = [Stack(3), Stack(3)]
    for i, stack in enumerate(stacks):
        stack.start(np.full((4, 4, 1), 10 * i + 1, np.uint8))
        stack.push(np.full((4, 4, 1), 10 * i + 2, np.uint8))
    images = observations(stacks, torch.device("cpu")).whole()
    assert images.shape == (2, 3, 4, 4)
    assert images[:, :, 0, 0].tolist() == [[0, 1, 2], [0, 11, 12]]


@pytest.mark.parametrize("wrong", [{"noops": -1}, {"frame_skip": 0}, {"max_steps": 0}, {"size": 0}])
def test_bad_values(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Env("pong", **wrong)


def test_area_averages_the_screen():
    """Every pixel of the screen counts, unlike with linear."""
    frames = {}
    for resize in ("area", "linear"):
        env = Env("breakout", size=10, resize=resize)
        frames[resize] = env.reset()[:, :, 0].astype(float)
    means = env.screens.max(0).reshape(10, 21, 10, 16).mean((1, 3))
    assert np.abs(frames["area"] - means).max() <= 1 < np.abs(frames["linear"] - means).max()
    with pytest.raises(UserError, match=r"env\.resize=cubic is unknown"):
        read_config(["env.resize=cubic"])
