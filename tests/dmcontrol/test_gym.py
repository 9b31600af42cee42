"""Environments of Gymnasium as tasks, and tasks as environments of Gymnasium."""

import csv
import signal
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import DMControl.gym_register
from DMControl.core.errors import UserError
from DMControl.core.run.paths import parse_path
from DMControl.env import EVALUATE, TRAIN, Env
from DMControl.evaluate import main as evaluate
from DMControl.evaluate import make_env
from DMControl.settings import read_config, run_path, worlds_of
from DMControl.train import make_trainer
from scripts.ledger.runs import row_of
from scripts.trees import DMCONTROL
from tests import stopped

assert DMControl.gym_register


def settings(task, *more):
    short = [
        "env_steps=100",
        "train.random_steps=20",
        "train.update_every=4",
        "eval.every=100",
        "eval.episodes=1",
        "checkpoint.every=1000",
        "eval.video=false",
    ]
    own = ["gym.import=tests.toy_gym"] if task.startswith("gym:Toy") else []
    return read_config([f"task={task}", "method=baseline", "preset=debug", *short, *own, *more])


def make(task="gym:Toy/Dot-v0", *more, seed=1, stream=TRAIN):
    config = settings(task, *more)
    return make_env(config, seed, stream, worlds_of(config)[0])


def test_frames_are_the_pictures_made_smaller_and_actions_are_scaled():
    env = make("gym:Toy/Dot-v0", "image.size=20", "image.crop=18")
    frame = env.reset()
    inner = env.inner.unwrapped
    assert frame.shape == (20, 20, 3) and frame.dtype == np.uint8 and env.action_dim == 2
    assert frame.sum(0)[:, 0].argmax() == pytest.approx(int(inner.x) * 20 / 24, abs=1)
    assert np.allclose(frame[0].sum(0) / frame[0, :, 0].sum(), [1, 0.4, 0.2], atol=0.02)  # the colours stay in order
    for action in ([-1, -1], [0, 0], [1, 1]):
        env.step(np.array(action, np.float32))
    assert np.array_equal(inner.taken, np.array([[-1, 0], [0, 2], [1, 4]], np.float32)) and inner.taken[0].dtype == np.float32
    assert env.render(64).shape == (64, 64, 3) and env.fps == 20


def test_a_step_repeats_the_action_and_only_terminated_is_an_end():
    one, four = make(), make("gym:Toy/Dot-v0", "action_repeat=4")
    assert (one.episode_length, four.episode_length) == (40, 10)
    one.reset(), four.reset()
    stay = np.zeros(2, np.float32)
    singles = [one.step(stay).reward for _ in range(8)]
    assert [four.step(stay).reward for _ in range(2)] == pytest.approx([sum(singles[:4]), sum(singles[4:])])
    steps = [four.step(stay) for _ in range(8)]
    assert [s.last for s in steps] == [False] * 7 + [True] and not steps[-1].terminal  # the time limit
    one.reset()
    while not one.over:
        step = one.step(np.array([-1, 0], np.float32))
    assert step.terminal and step.last and one.simulated < 40


@pytest.mark.parametrize("name", ["Silent", "Quiet"])
def test_what_it_observes_is_filmed_where_it_renders_nothing(name):
    env = make(f"gym:Toy/{name}-v0")
    env.reset()
    assert env.render(64).shape == (64, 64, 3) and env.render(64).std() > 1


def test_an_environment_without_a_limit_is_given_one():
    gymnasium.register("Toy/Limitless-v0", entry_point="tests.toy_gym:Dot")
    env = make("gym:Toy/Limitless-v0", "gym.max_steps=9")
    env.reset()
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(9)]
    assert env.episode_length == 9 and [s.last for s in steps] == [False] * 8 + [True] and not steps[-1].terminal


def test_episodes_follow_from_seed_stream_and_number():
    env, other = make(), make()
    env.reset(0), env.reset(3)
    assert np.array_equal(env.reset(1), other.reset(1)) and env.inner.unwrapped.x == other.inner.unwrapped.x
    starts = [e.reset(n) is None or e.inner.unwrapped.x for e, n in ((env, 1), (env, 2), (make(seed=2), 1), (make(stream=EVALUATE), 1))]
    assert len(set(starts)) == 4


def test_a_preset_brings_no_world_and_other_tasks_no_block():
    config = read_config(["task=gym:Toy/Dot-v0", "method=madi", "preset=madi"])
    assert config.eval.worlds == [] and config.action_repeat == 1 and config.env_steps == 500_000
    assert read_config(["method=madi", "preset=madi"]).eval.worlds and "gym" not in read_config([])


@pytest.mark.parametrize(
    ("task", "more", "says"),
    [
        ("gym:Toy/Blind-v0", [], "no pixels"),
        ("gym:Toy/Floating-v0", [], r"renders float32 \(20, 24, 4\): a picture must be uint8"),
        ("gym:Toy/Growing-v0", [], r"changed the shape of its pictures from \(20, 24, 3\) to \(21, 24, 3\)"),
        ("gym:Toy/Unbounded-v0", [], "actions without bounds"),
        ("gym:Toy/Whole-v0", [], "needs a Box of real numbers"),
        ("gym:Toy/Keys-v0", [], "python -m Atari.train game=gym:Toy/Keys-v0"),
        ("gym:Toy/Broken-v0", [], r"cannot be made \(FileNotFoundError: no map\)"),
        ("gym:Toy/Missing-v0", [], "needs a package that is not installed here: No module named 'a_package_of_nobody'"),
        ("gym:Nowhere/Dot-v0", [], "not registered: .*gym.import=PACKAGE"),
        ("gym:InvertedPendulum-v99", [], "not registered: .*v99"),
        ("gym:InvertedPendulum-v5", ["gym.import=a_package_of_nobody"], "gym.import=a_package_of_nobody cannot be imported"),
        ("gym:InvertedPendulum-v5", ["world=video_easy"], "key world has no effect with task=gym:InvertedPendulum-v5"),
        ("gym:a/b/c", [], "must look like gym:CarRacing-v3"),
        ("walker_walk", ["gym.import=tests.toy_gym"], "key gym.import has no effect with task=walker_walk"),
        ("gym", [], "task=gym is unknown"),
    ],
)
def test_what_cannot_be_trained_is_one_line(task, more, says, tmp_path):
    with pytest.raises(UserError, match=says):
        make_trainer(settings(task, f"runs={tmp_path}", *more), "test")
    assert not list(tmp_path.iterdir())


def train(config, stop_at=None, judged=True):
    made = make_trainer(config, "test")
    made.evaluated_at = -1 if judged else 0
    return stopped.train(made, stop_at)


def rows(run):
    with open(run.folder.path / "train.csv", newline="") as file:
        return [(row["env_step"], row["episode_return"], row["episode_length"], row["loss/critic"]) for row in csv.DictReader(file)]


def test_a_stopped_run_resumes_exactly_and_has_its_row(tmp_path, capsys):
    whole, code = train(settings("gym:Toy/Dot-v0", f"runs={tmp_path / 'whole'}"))
    assert code == 0 and whole.env.exact and "repeat itself" not in capsys.readouterr().out
    config = settings("gym:Toy/Dot-v0", f"runs={tmp_path / 'parts'}")
    first, code = train(config, stop_at=70)
    assert code == 128 + signal.SIGTERM and not first.env.over and first.env.actions
    second, code = train(config)
    assert code == 0 and rows(second) == rows(whole) and len(rows(whole)) >= 2
    assert torch.equal(second.replay.reward, whole.replay.reward) and torch.equal(second.replay.store.frames, whole.replay.store.frames)
    assert all(torch.equal(a, b) for a, b in zip(second.agent.actor.parameters(), whole.agent.actor.parameters(), strict=True))
    folder = whole.folder.path
    assert folder == run_path(whole.config) and folder.parts[-3] == "gym+Toy+Dot-v0" and parse_path(folder).task == "gym:Toy/Dot-v0"
    with pytest.raises(UserError, match="world video_easy is for tasks of the suite"):
        evaluate([f"run={folder}", "episodes=1", "worlds=video_easy"])
    row, _ = row_of(folder, DMCONTROL)
    assert row["task"] == "gym:Toy/Dot-v0" and "env_steps=100" in row["changed"] and "gym.import" not in row["changed"]
    assert DMCONTROL.label(row) == "gym+Toy+Dot-v0-baseline-debug-seed1"
    assert evaluate([f"run={folder}", "episodes=1"]) == 0


def test_where_nothing_repeats_a_stop_costs_the_episode_under_way(tmp_path, capsys):
    config = settings("gym:Toy/Noisy-v0", f"runs={tmp_path}", "env_steps=115", "eval.every=115")
    first, _ = train(config, stop_at=70)
    assert "does not repeat itself" in capsys.readouterr().out and not first.env.exact
    begun = first.episode_start
    assert 0 < begun < first.step and len(first.env.state_dict()["actions"]) == 0
    second, code = train(config)
    assert code == 0 and "the next one begins" in capsys.readouterr().out
    last = first.step - 1  # the newest transition before the stop
    assert second.replay.ends[last] and second.replay.not_done[last] and second.replay.age[last + 1] == 0
    (end, episode_return, length), *_ = [[float(number) for number in row[:3]] for row in rows(second) if int(row[0]) > first.step]
    assert end - length == first.step  # the lost episode has no row
    assert episode_return == pytest.approx(float(second.replay.reward[first.step : int(end)].sum()), rel=1e-4)


def test_a_crash_costs_the_episode_only_where_nothing_repeats(tmp_path):
    for name, lost in (("Dot", False), ("Noisy", True)):
        made = make_trainer(settings(f"gym:Toy/{name}-v0", f"runs={tmp_path}", "env_steps=60"), "test")
        step, crashes = made.env.inner.step, []

        def failing(action, step=step, crashes=crashes):
            if len(crashes) == 25:
                raise RuntimeError("the renderer fell over")
            crashes.append(0)
            return step(action)

        made.env.inner.step = failing
        assert made.train() == 0 and made.restarts == 1
        assert bool(made.replay.ends[24]) == lost and bool(made.replay.age[25] == 0) == lost
        made.folder.lock.close()


def test_a_physics_of_gymnasium_itself():
    """InvertedPendulum comes with Gymnasium and MuJoCo. What it observes is no picture: it is rendered."""
    env = make("gym:InvertedPendulum-v5")
    frames = [env.reset(), *(env.step(np.full(1, 0.5, np.float32)).frame for _ in range(3))]
    assert all(f.shape == (40, 40, 3) and f.std() > 1 for f in frames) and not np.array_equal(frames[0], frames[3])


@pytest.mark.parametrize("name", ["cartpole_swingup", "walker_walk-video_hard"])
def test_a_task_passes_gymnasiums_check(name):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(gymnasium.make(f"DMControl/{name}-v0").unwrapped)
    assert [str(warning.message) for warning in said] == []


def test_a_registered_task_is_ours():
    """Protocol, frames, rewards and ends; and a seed starts anew."""
    env = gymnasium.make("DMControl/walker_walk-v0", settings=["image.shadows=false"], size=32).unwrapped
    ours = Env("walker_walk", 2, 32, False, seed=7, stream=TRAIN)
    seen, _ = env.reset(seed=7)
    frames = [ours.reset()] * 3
    assert np.array_equal(seen, np.concatenate(frames, -1)) and env.env.action_repeat == 2
    action = env.action_space.sample()
    for _ in range(3):
        seen, reward, terminated, truncated, _ = env.step(action)
        step = ours.step(action)
        frames = [*frames[1:], step.frame]
        assert np.array_equal(seen, np.concatenate(frames, -1)) and reward == step.reward and not terminated and not truncated
    assert np.array_equal(env.reset()[0], np.concatenate([ours.reset()] * 3, -1))  # the next episode
    again, _ = env.reset(seed=7)
    assert np.array_equal(again, np.concatenate([ours.reset(0)] * 3, -1))
    env.env.inner._step_limit = 2
    assert env.step(action)[2:4] == (False, True)


@pytest.mark.parametrize(
    ("module", "package", "task", "registers"),
    [
        ("Box2D", "gymnasium[box2d]", "gym:CarRacing-v3", ""),
        ("gymnasium_robotics", "gymnasium-robotics", "gym:PointMaze_UMaze-v3", "gymnasium_robotics"),
    ],
)
def test_a_task_of_another_package(module, package, task, registers, tmp_path):
    pytest.importorskip(module, reason=f"needs {package}")
    more = [f"gym.import={registers}"] if registers else []
    made, code = train(settings(task, f"runs={tmp_path}", "env_steps=60", "eval.every=1000", *more), stop_at=45, judged=False)
    assert code and made.env.exact and made.agent.updates > 5


def test_another_projects_agent_trains_on_a_task():
    agents = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")
    env = gymnasium.make("DMControl/cartpole_swingup-v0", size=48, settings=["image.shadows=false"])
    agent = agents.PPO("CnnPolicy", env, n_steps=250, batch_size=50, n_epochs=1, device="cpu")
    before = [p.clone() for p in agent.policy.parameters()]
    agent.learn(500)
    assert agent.num_timesteps == 500
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))
