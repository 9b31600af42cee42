"""Environments of Gymnasium as games, and games as environments of Gymnasium."""

import csv
import signal
import warnings

import cv2
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import Atari.gym_register
from Atari.core.errors import UserError
from Atari.core.run import multirun
from Atari.env import EVALUATE, TRAIN, Env, Step
from Atari.evaluate import main as evaluate
from Atari.evaluate import make_env
from Atari.replay import Replay
from Atari.settings import read_config
from Atari.train import make_trainer
from scripts.ledger.runs import row_of
from scripts.trees import ATARI
from tests import stopped

assert Atari.gym_register


def settings(game, *more):
    short = ["steps=130", "train.random_steps=40", "env.max_steps=30", "eval.every=200", "eval.final_episodes=1", "checkpoint.every=1000"]
    own = ["gym.import=tests.toy_gym"] if game.startswith("gym:Toy") else []
    return read_config([f"game={game}", "method=baseline", "preset=debug", *short, "eval.video=false", *own, *more])


def make(game="gym:Toy/Keys-v0", *more, seed=1, stream=TRAIN):
    return make_env(settings(game, *more), seed, stream)


def test_frames_are_grey_and_small_and_actions_are_numbered_from_the_first():
    env = make("gym:Toy/Keys-v0", "env.size=20", "env.clip_reward=false")
    env.reset()
    step = env.step(0)
    expected = cv2.resize(cv2.cvtColor(env.inner.unwrapped.picture(), cv2.COLOR_RGB2GRAY), (20, 20), interpolation=cv2.INTER_AREA)
    assert np.array_equal(step.frame, expected[:, :, None]) and step.frame.std() > 1
    env.step(2)
    assert env.n_actions == 3 and env.inner.unwrapped.taken == [1, 3] and env.steps == 2
    assert step.reward == step.score == pytest.approx(env.score - env.inner.unwrapped.x)
    assert env.render().shape == (20, 24, 3)


def test_rewards_are_clipped_in_training_and_raw_when_judged():
    for stream, clipped in ((TRAIN, True), (EVALUATE, False)):
        env = make(stream=stream)
        env.reset()
        step = env.step(1)
        assert step.score > 10 and step.reward == (1.0 if clipped else step.score)


def test_terminated_ends_the_value_and_truncated_does_not():
    env = make("gym:Toy/Keys-v0", "env.max_steps=100")
    env.reset()
    steps = [env.step(2) for _ in range(40)]
    assert not any(s.done for s in steps) and [s.over for s in steps] == [False] * 39 + [True]
    env.reset()
    while not env.over:
        step = env.step(0)
    assert step.done and step.over and not step.blank and env.steps < 40
    env = make("gym:Toy/Keys-v0", "env.frame_skip=2", "env.max_steps=5")
    env.reset()
    steps = [env.step(2) for _ in range(5)]
    assert steps[-1].over and not steps[-1].done and not steps[-2].over and env.simulated == 10


def test_a_background_is_drawn_behind_it():
    plain, noisy, again = make(), *(make("gym:Toy/Keys-v0", "env.distraction=noise") for _ in range(2))
    frames = [env.reset(4) for env in (plain, noisy)]
    again.reset(2), again.step(1)
    assert frames[1].std() > frames[0].std() and np.array_equal(frames[1], again.reset(4))


def replay_of(episodes, n_step=3, window=6):
    """Frames say their own number; rewards are 1."""
    generator = torch.Generator().manual_seed(0)
    replay = Replay(
        60, size=4, stack=2, window=window, n_step=n_step, discount=0.5, alpha=0.5, device=torch.device("cpu"), generator=generator,
        done_n_first_step=False,
    )  # fmt: skip
    number = 0

    def frame():
        nonlocal number
        number += 1
        return np.full((4, 4, 1), number, np.uint8)

    for length, done in episodes:
        replay.start(frame())
        for t in range(length):
            last = t == length - 1
            replay.add(t, Step(frame(), 1.0, 1.0, done and last, False, last))
    return replay


def test_a_truncated_episode_keeps_its_last_frame_and_bootstraps_from_it():
    """Frames 1 to 7 are the truncated episode, 8 to 13 the next one, which terminates, and whose last frame is not kept."""
    replay = replay_of([(6, False), (5, True), (30, True)])
    batch = replay.sample(2000, 1.0)
    first, after = (frames.whole()[:, -1, 0, 0].int() for frames in (batch.obs, batch.next_obs))
    of_truncated = first <= 7
    assert set(first[of_truncated].tolist()) == {1, 2, 3, 4}  # three steps from frame 5 on would reach beyond frame 7
    assert (after - first)[of_truncated].eq(3).all() and not batch.done_n[of_truncated].any()
    assert batch.return_n[of_truncated].eq(1.75).all()
    ended = (first >= 8) & (first <= 12)
    assert set(first[ended].tolist()) == {8, 9, 10, 11, 12}
    assert torch.equal(batch.done_n[ended], (first[ended] >= 10).float())
    windows = batch.sequence.obs.whole()[:, -1, 0, 0].int().view(2000, 6)
    assert windows[first == 4].unique(dim=0).tolist() == [[4, 5, 6, 7, 7, 7]]


def test_an_end_before_a_cut_is_an_end():
    """A terminated episode, then a truncated one of one step: the return of the first stops at its end, and does not reach the cut."""
    replay = replay_of([(4, True), (1, False), (20, True)])
    first = replay.sample(500, 1.0).obs.whole()[:, -1, 0, 0].int()
    assert {1, 2, 3, 4} <= set(first.tolist()) and not {6, 7} & set(first.tolist())


def test_cuts_outlive_a_save_and_a_save_from_before_has_none():
    replay, other, older = replay_of([(6, False), (5, True)]), replay_of([]), replay_of([])
    state = replay.state_dict()
    other.load_state_dict(state, [], None)
    assert other.last_cut == 6 and torch.equal(other.cuts, replay.cuts) and other.starts == replay.starts
    del state["arrays"]["cuts"], state["counters"]["last_cut"], state["counters"]["starts"]
    older.load_state_dict(state, [], None)
    assert older.last_cut == -1 and older.added == replay.added and not older.cuts.any()


def test_episodes_that_are_all_too_short_are_named():
    replay = replay_of([(2, False)] * 10)
    with pytest.raises(UserError, match=r"fewer than 3 steps, as rainbow.n_step has"):
        replay.sample(2, 1.0)


@pytest.mark.parametrize(
    ("game", "more", "says"),
    [
        ("gym:Toy/Dot-v0", [], "python -m DMControl.train task=gym:Toy/Dot-v0"),
        ("gym:Toy/GrowingKeys-v0", [], r"changed the shape of its pictures from \(20, 24, 3\) to \(21, 24, 3\)"),
        ("gym:Toy/Nothing-v0", [], "not registered: .*gym.import=PACKAGE"),
        ("gym:ALE/Pong-v5", ["gym.import=a_package_of_nobody"], "gym.import=a_package_of_nobody cannot be imported"),
        ("gym:ALE/Pong-v5", ["env.noops=3"], "key env.noops has no effect with game=gym:ALE/Pong-v5"),
        ("pong", ["gym.import=tests.toy_gym"], "key gym.import has no effect with game=pong"),
        ("gym:a/b/c", [], "must look like gym:ALE/Pong-v5"),
    ],
)
def test_what_cannot_be_trained_is_one_line(game, more, says, tmp_path):
    with pytest.raises(UserError, match=says):
        make_trainer(settings(game, f"runs={tmp_path}", *more), "test")
    assert not list(tmp_path.iterdir())


def train(config, stop_at=None):
    return stopped.train(make_trainer(config, "test"), stop_at)


def rows(run):
    with open(run.folder.path / "train.csv", newline="") as file:
        return [(row["frame"], row["episode_return"], row["episode_length"], row["loss/rl"]) for row in csv.DictReader(file)]


def test_a_stopped_run_resumes_exactly_and_has_its_row(tmp_path, capsys):
    game = "gym:Toy/Keys-v0"
    whole, code = train(settings(game, f"runs={tmp_path / 'whole'}"))
    assert code == 0 and whole.env.exact and "repeat itself" not in capsys.readouterr().out
    first, code = train(settings(game, f"runs={tmp_path / 'parts'}"), stop_at=80)
    assert code == 128 + signal.SIGTERM and not first.env.over and first.env.actions and first.replay.last_cut > 0
    second, code = train(settings(game, f"runs={tmp_path / 'parts'}"))
    assert code == 0 and rows(second) == rows(whole) and len(rows(whole)) >= 4
    assert torch.equal(second.replay.leaf, whole.replay.leaf) and torch.equal(second.replay.store.frames, whole.replay.store.frames)
    assert all(torch.equal(a, b) for a, b in zip(second.agent.network.parameters(), whole.agent.network.parameters(), strict=True))
    folder = whole.folder.path
    row, _ = row_of(folder, ATARI)
    assert folder.parts[-3] == "gym+Toy+Keys-v0" and row["game"] == game and row["frame"] == "130"
    assert evaluate([f"run={folder}", "episodes=1", "video=true"]) == 0 and list((folder / "video").glob("evaluate_*.mp4"))


def test_where_nothing_repeats_a_stop_costs_the_episode_under_way(tmp_path, capsys):
    config = settings("gym:Toy/NoisyKeys-v0", f"runs={tmp_path}")
    first, _ = train(config, stop_at=80)
    assert "does not repeat itself" in capsys.readouterr().out and not first.env.over
    newest = first.replay.added
    second, code = train(config)
    assert code == 0 and "the next one begins" in capsys.readouterr().out
    assert second.replay.cuts[newest] and not second.replay.done[newest - 1] and second.replay.age[newest + 1] == 0
    lost = len(first.env.actions)
    assert 0 < lost and sum(int(float(length)) for _, _, length, _ in rows(second)) <= second.step - lost


def test_several_runs_have_the_names_that_were_typed():
    games = ["gym:ALE/Pong-v5", "gym:Toy/Keys-v0"]
    assert multirun.combinations([f"game={','.join(games)}", "seed=1"]) == [[f"game={game}", "seed=1"] for game in games]


def test_pong_of_gymnasium_is_a_game():
    env, again = make("gym:ALE/Pong-v5"), make("gym:ALE/Pong-v5")
    frames = [env.reset(), *(env.step(2).frame for _ in range(12))]
    assert frames[0].shape == (36, 36, 1) and env.n_actions == 6 and not np.array_equal(frames[1], frames[12])
    again.load_state_dict(env.state_dict())
    assert np.array_equal(env.step(3).frame, again.step(3).frame)


def test_a_game_passes_gymnasiums_check():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(gymnasium.make("Atari/pong-100k-v0").unwrapped)
    assert [str(warning.message) for warning in said] == []


def test_a_registered_game_is_ours():
    """An episode ends with a life, and the game goes on after the reset; with a seed it begins anew."""
    env = gymnasium.make("Atari/breakout-100k-v0").unwrapped
    ours = Env("breakout", seed=7)
    seen, _ = env.reset(seed=7)
    start = ours.reset()
    assert seen.shape == (84, 84, 4) and np.array_equal(seen[..., 3:], start) and not seen[..., :3].any()
    terminated = False
    while not terminated:
        seen, reward, terminated, truncated, more = env.step(1)
        step = ours.step(1)
        assert np.array_equal(seen[..., 3:], step.frame) and (reward, terminated, more["score"]) == (step.reward, step.done, step.score)
        assert not truncated
    assert step.blank and not step.over and env.env.lives == 4
    after, _ = env.reset()
    assert np.array_equal(after[..., 3:], step.frame) and not after[..., :3].any() and env.env.lives == 4
    again, _ = env.reset(seed=7)
    assert np.array_equal(again[..., 3:], start) and env.env.lives == 5
    env.env.max_steps = 1
    assert env.step(1)[2:4] == (False, True)


def test_minigrid_is_a_game(tmp_path):
    pytest.importorskip("minigrid", reason="needs minigrid")
    made, code = train(settings("gym:MiniGrid-Empty-5x5-v0", f"runs={tmp_path}", "steps=60", "gym.import=minigrid"), stop_at=50)
    assert code and made.env.exact and made.agent.updates and made.env.inner.observation_space["image"].shape == (7, 7, 3)


def test_another_projects_agent_trains_on_a_game():
    agents = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")
    env = gymnasium.make("Atari/pong-100k-v0", settings=["env.size=48"])
    agent = agents.DQN("CnnPolicy", env, buffer_size=500, learning_starts=300, train_freq=20, batch_size=8, device="cpu")
    before = [p.clone() for p in agent.policy.parameters()]
    agent.learn(500)
    assert agent.num_timesteps == 500
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))
