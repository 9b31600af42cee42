"""Whole runs: what they leave behind, same seed same curve, going on after a stop, mistakes in one line."""

import csv
import json
import re
import signal
import subprocess
import sys

import pytest
import torch
import yaml

from Atari import evaluate as evaluation
from Atari.core.errors import UserError
from Atari.core.method.encoder import Trunk
from Atari.core.run.config import digest
from Atari.core.run.folder import UNHASHED
from Atari.settings import read_config, run_path
from Atari.train import main, make_trainer

# 120 steps, the last 90 of them with an update; games of at most 60 steps; evaluations at 0, 60 and the end
SHORT = ("preset=debug", "steps=120", "train.random_steps=30", "env.max_steps=60", "eval.every=60", "checkpoint.every=60")


def train(tmp_path, *arguments, stop_at=None):
    trainer = make_trainer(read_config([*SHORT, f"runs={tmp_path}", "eval.video=false", *arguments]), "test")
    if stop_at is not None:
        step = trainer.env.step

        def stopping(action):
            if trainer.step >= stop_at:
                trainer.stop.signal = signal.SIGTERM
            return step(action)

        trainer.env.step = stopping
    trainer.code = trainer.train()
    trainer.folder.lock.close()
    return trainer


def rows(trainer, name):
    with open(trainer.folder.path / name, newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in r.items() if k != "hours" and not k.startswith(("time/", "perf/"))} for r in found]


def parameters(trainer):
    agent = trainer.agent
    modules = [agent.network, agent.target, *([agent.objective] if agent.objective is not None else [])]
    return torch.cat([p.detach().double().reshape(-1) for m in modules for p in m.state_dict().values()])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """whole_run("method=mlr", "game=pong") is a run that was not stopped: trained once, then only read."""
    made = {}

    def whole(*arguments):
        if arguments not in made:
            made[arguments] = train(tmp_path_factory.mktemp("whole"), *arguments)
        return made[arguments]

    return whole


def centres(agent):
    return [m.centre.tolist() for whole in agent.modules.values() for m in whole.modules() if isinstance(m, Trunk)]


def test_every_encoder_takes_the_mean_grey_before_the_first_update_off_and_keeps_it(tmp_path, whole_run):
    arguments = ("method=curl", "game=pong", "encoder.centre=true")  # whose objective has a target encoder too
    whole, first = whole_run(*arguments), train(tmp_path, *arguments, stop_at=15)
    assert first.agent.updates == 0 and {c for trunk in centres(first.agent) for c in trunk} == {0.0}
    second = train(tmp_path, *arguments)
    frames = whole.replay.store.frames[:32]  # the first, and one after each of 30 random steps and the first chosen one
    for agent in (whole.agent, second.agent):
        found = centres(agent)
        assert len(found) >= 3 and all(trunk == pytest.approx([frames.float().mean().item()] * 4) for trunk in found)
    assert torch.equal(parameters(whole), parameters(second))
    other = train(tmp_path / "other", *arguments, f"transfer.run={second.folder.path}", "game=breakout")
    assert centres(other.agent) == centres(whole.agent)  # as those weights were trained


def test_a_run_from_before_a_key_existed_goes_on_and_is_judged(tmp_path, whole_run):
    """As if it had the key with the value of that time; its hash of the settings stays what it was."""
    arguments = ("method=mlr", "game=pong")
    path = train(tmp_path, *arguments, stop_at=80).folder.path
    saved = (path / "config.yaml").read_text()
    older = "".join(line for line in saved.splitlines(keepends=True) if not re.match(r" *(env_timeout|tracker|centre|fill):", line))
    assert len(older.splitlines()) == len(saved.splitlines()) - 4
    (path / "config.yaml").write_text(older)
    config = yaml.safe_load(older)
    assert digest(config, UNHASHED) == json.loads((path / "origin.json").read_text())[0]["config_hash"]
    assert torch.equal(parameters(train(tmp_path, *arguments)), parameters(whole_run(*arguments)))
    assert evaluation.main([f"run={path}", "episodes=1", "threads=1"]) == 0


@pytest.mark.parametrize("method", ["mlr", "baseline"])
def test_same_seed_same_curve(tmp_path, whole_run, method):
    arguments = (f"method={method}", "game=pong")
    one, two, other = whole_run(*arguments), train(tmp_path / "two", *arguments), train(tmp_path / "other", *arguments, "seed=2")
    assert rows(one, "train.csv") == rows(two, "train.csv") and rows(one, "eval.csv") == rows(two, "eval.csv")
    assert torch.equal(parameters(one), parameters(two)) and not torch.equal(parameters(one), parameters(other))


@pytest.mark.parametrize(
    ("game", "stop_at", "method"),
    [("pong", 15, "mlr"), ("breakout", 59, "mlr"), ("breakout", 80, "mlr"), ("pong", 59, "playvirtual"), ("pong", 59, "curl")],
)
def test_a_stop_changes_nothing(tmp_path, whole_run, game, stop_at, method):
    """N steps, a stop in mid-game, M more: parameters, replay, priorities, random streams and rows are those of N + M."""
    arguments = (f"method={method}", f"game={game}")
    whole, first = whole_run(*arguments), train(tmp_path, *arguments, stop_at=stop_at)
    assert first.code == 128 + signal.SIGTERM and first.step == stop_at + 1
    second = train(tmp_path, *arguments)
    assert second.code == 0 and torch.equal(parameters(whole), parameters(second))
    assert torch.equal(whole.replay.store.frames, second.replay.store.frames) and torch.equal(whole.replay.leaf, second.replay.leaf)
    assert torch.equal(whole.agent.generator.get_state(), second.agent.generator.get_state())
    assert torch.equal(whole.agent.dice.get_state(), second.agent.dice.get_state())
    for name in ("train.csv", "eval.csv"):
        assert rows(whole, name) == rows(second, name)


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["mlr", "baseline"])
def test_a_stop_on_a_gpu_changes_no_more_than_rounding(tmp_path, method):
    """Ten updates of fp32, a stop, and ten more: recorded before the stop, and recorded anew after it."""
    settings = (f"method={method}", "game=breakout", "device=cuda", "precision=fp32", "steps=80", "train.random_steps=60")
    whole = train(tmp_path / "whole", *settings)
    first = train(tmp_path / "parts", *settings, stop_at=69)
    second = train(tmp_path / "parts", *settings)
    assert first.step == 70 and (whole.code, second.code, second.step) == (0, 0, whole.step)
    assert [t.agent.updates for t in (whole, first, second)] == [20, 10, 20]
    assert all(len(t.agent.recorder.recorded) == 1 for t in (whole, first, second))
    assert torch.equal(whole.agent.generator.get_state(), second.agent.generator.get_state())
    assert (parameters(whole) - parameters(second)).abs().mean() < 1e-5 < (parameters(whole) - parameters(first)).abs().mean()


def test_evaluation_leaves_training_alone(tmp_path, whole_run):
    arguments = ("method=mlr", "game=pong")
    few, many = whole_run(*arguments), train(tmp_path, *arguments, "eval.every=20")
    assert len(rows(few, "eval.csv")) < len(rows(many, "eval.csv"))
    assert torch.equal(parameters(few), parameters(many)) and rows(few, "train.csv") == rows(many, "train.csv")


@pytest.mark.parametrize("method", ["mlr", "baseline", "playvirtual"])
def test_every_key_is_read(tmp_path, method):
    config = read_config([*SHORT, f"runs={tmp_path}", "steps=50", f"method={method}"])
    trainer = make_trainer(config, "test")
    trainer.train()
    trainer.folder.lock.close()
    assert config.unread() == []


VARIANTS = [
    ["mlr.mask.strategy=spatial"],
    ["mlr.mask.strategy=temporal"],
    ["mlr.target=pixels"],
    ["mlr.action_tokens=false"],
    ["mlr.tau=0.05"],
    ["mlr.decoder.width=0", "mlr.decoder.heads=2"],
    ["augment.order=[affine,intensity,shift]", "mlr.chunk=3"],
    ["quirks.masked_input_0_255=false", "quirks.count_kept=false", "quirks.targets_lag=false", "quirks.unclipped_heads=false"],
    ["env.episodic_life=false", "env.clip_reward=false", "env.stack=2", "game=breakout"],
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda v: v[0])
def test_every_choice_trains(tmp_path, changes):
    trainer = train(tmp_path, "steps=40", "eval.final_episodes=1", *changes)
    assert trainer.code == 0 and torch.isfinite(parameters(trainer)).all() and trainer.agent.updates > 0


def test_updates_begin_after_the_random_steps(tmp_path):
    """As officially: 2 x 98,000 updates in 100,000 steps, 2,001 random actions."""
    trainer = train(tmp_path, "steps=40", "eval.final_episodes=1")
    assert trainer.agent.updates == 40 - 30


def test_the_papers_values():
    c = read_config(["preset=paper"])
    assert (c.mlr.window, c.mlr.mask.patch, c.mlr.mask.block, c.rainbow.n_step, c.train.updates_per_step) == (16, 12, 8, 10, 2)
    assert (c.steps, c.env.frame_skip, c.rainbow.batch_size, c.rainbow.noisy_std) == (100_000, 4, 32, 0.1)


@pytest.mark.parametrize(
    ("name", "game", "weight"),
    [("Pong", "pong", 5), ("pong", "pong", 5), ("UpNDown", "up_n_down", 5), ("KungFuMaster", "kung_fu_master", 1), ("tetris", "tetris", 1)],
)
def test_names_and_lambda(name, game, weight):
    c = read_config([f"game={name}"])
    assert (c.game, c.mlr.weight) == (game, weight)
    assert run_path(c).parts[-3] == game


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["game=pongg"], "did you mean pong"),
        (["method=mlrr"], "did you mean mlr"),
        (["rainbow.lr=x"], "must be a number"),
        (["mlr.mask.rato=1"], "did you mean mlr.mask.ratio"),
        (["method=baseline", "mlr.tau=1"], "no effect"),
        (["method=baseline", "quirks.count_kept=false"], "no effect"),
        (["replay.beta=[0.4]"], "two numbers"),
        (["steps=2000"], "must exceed train.random_steps"),
    ],
)
def test_a_mistake_is_named(arguments, says):
    with pytest.raises(UserError, match=says):
        read_config(arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mlr.mask.patch=7"], "does not divide"),
        (["mlr.window=5"], "not a multiple"),
        (["mlr.mask.ratio=1"], "between 0 and 1"),
        (["train.random_steps=3"], "must exceed"),
        (["encoder.filters=[4]"], "equally many"),
    ],
)
def test_a_setting_that_cannot_run_writes_nothing(tmp_path, arguments, says):
    with pytest.raises(UserError, match=says):
        make_trainer(read_config(["preset=debug", f"runs={tmp_path}", *arguments]), "test")
    assert not list(tmp_path.iterdir())


class TestCommandLine:
    @pytest.fixture(scope="class")
    @staticmethod
    def finished(tmp_path_factory, root):
        runs = tmp_path_factory.mktemp("runs")
        command = [sys.executable, "-m", "Atari.train", "game=Breakout", "preset=debug", f"runs={runs}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        assert done.returncode == 0, done.stderr
        return done, runs / "atari/breakout/mlr-debug/seed1", command

    def test_what_a_run_leaves_behind(self, finished):
        done, run, _ = finished
        assert "finished at 960 frames" in done.stdout
        result = json.loads((run / "result.json").read_text())
        assert result["frames"] == 960 and len(result["eval_returns"]) == 3 and result["versions"]["ale-py"]
        with open(run / "eval.csv", newline="") as file:
            found = list(csv.DictReader(file))
        assert [int(r["frame"]) for r in found] == [0] * 2 + [400] * 2 + [800] * 2 + [960] * 3
        score = float(found[-1]["episode_return"])
        assert float(found[-1]["human_normalized"]) == pytest.approx((score - 1.7) / (30.5 - 1.7), abs=1e-5)
        assert (run / "video" / "final.mp4").stat().st_size > 1000

    def test_tensorboard_tags(self, finished):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        _, run, _ = finished
        events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
        events.Reload()
        tags = events.Tags()
        wanted = {"train/episode_return", "eval/episode_return", "eval/human_normalized", "loss/rl", "loss/mlr", "perf/updates_per_second"}
        assert wanted <= set(tags["scalars"])
        assert {"mlr/frames_and_masked", "eval/episode"} <= set(tags["images"])

    def test_a_finished_run_says_so(self, finished, capsys):
        _, _, command = finished
        assert main(command[3:]) == 0 and "has finished: score" in capsys.readouterr().out

    def test_evaluate(self, finished, capsys):
        _, run, _ = finished
        assert evaluation.main([f"run={run}", "episodes=2", "video=true"]) == 0
        said = capsys.readouterr().out
        assert "2 games" in said and "human-normalised score" in said
        with open(run / "eval.csv", newline="") as file:
            found = [r for r in csv.DictReader(file) if r["seed"] == "10001"]
        assert len(found) == 2 and found[0]["frame"] == "960" and found[0]["human_normalized"]
        assert list((run / "video").glob("evaluate_*.mp4"))
