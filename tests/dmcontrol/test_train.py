"""Whole runs: what they leave behind, same seed same curve, and going on after a stop."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from DMControl import env as environment
from DMControl import evaluate as evaluation
from DMControl.settings import read_config
from DMControl.train import Trainer, main, make_trainer


@pytest.fixture
def drawn_frames(monkeypatch):
    """Frames drawn from the physics state: the same bytes on every machine, which software renderers do not promise."""

    def render(self, size=None):
        size = size or self.size
        state = np.resize(self.inner.physics.get_state(), 48)
        picture = (np.outer(np.linspace(-3, 3, size), np.resize(state, size)) * 40 + 128).astype(np.int64) % 256
        return np.repeat(picture.astype(np.uint8)[..., None], 3, -1)

    monkeypatch.setattr(environment.Env, "render", render)


# 80 agent steps, the last 50 of them with an update; episodes of 50 steps; evaluations at 0, 50 and 80
SHORT = ("preset=debug", "action_repeat=20", "env_steps=1600", "train.random_steps=30", "eval.video=false", "eval.episodes=1")
OWN = {"sac_ae": ("train.catch_up=4",)}  # of which three count no phase: the count is kept


def train(tmp_path, *arguments: str, stop_at: int | None = None, method: str = "mlr", short: tuple[str, ...] = SHORT) -> Trainer:
    trainer = make_trainer(read_config([*short, f"method={method}", f"runs={tmp_path}", *arguments]), "test")
    if stop_at is not None:
        choose = trainer.choose

        def stopping(random):
            if trainer.step >= stop_at:
                trainer.stop.signal = signal.SIGTERM
            return choose(random)

        trainer.choose = stopping
    trainer.code = trainer.train()
    trainer.folder.lock.close()
    return trainer


def rows(trainer: Trainer, name: str) -> list[dict[str, str]]:
    with open(trainer.folder.path / name, newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in r.items() if k != "hours" and not k.startswith(("time/", "perf/"))} for r in found]


def parameters(trainer: Trainer) -> torch.Tensor:
    modules = [trainer.agent.critic, trainer.agent.actor, trainer.agent.target]
    modules += [trainer.agent.objective] if trainer.agent.objective is not None else []
    return torch.cat([p.detach().reshape(-1) for m in modules for p in m.parameters()])


def assert_same_end(one: Trainer, two: Trainer) -> None:
    """Moments, random stream, replay and rows of two runs."""
    for name, optimizer in one.agent.optimizers.items():
        mine = two.agent.optimizers[name].inner.state_dict()["state"]
        for index, moments in optimizer.inner.state_dict()["state"].items():
            assert all(torch.equal(moments[k], mine[index][k]) for k in moments), name
    assert torch.equal(one.agent.generator.get_state(), two.agent.generator.get_state())
    assert torch.equal(one.replay.store.frames, two.replay.store.frames) and torch.equal(one.replay.action, two.replay.action)
    for name in ("train.csv", "eval.csv"):
        assert rows(one, name) == rows(two, name)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """whole_run(method) is a run that was not stopped: trained once, then only read."""
    made = {}

    def whole(method: str = "mlr") -> Trainer:
        if method not in made:
            made[method] = train(tmp_path_factory.mktemp("whole"), *OWN.get(method, ()), method=method)
        return made[method]

    return whole


@pytest.mark.parametrize("method", ["mlr", "baseline"])
def test_same_seed_same_curve(tmp_path, drawn_frames, whole_run, method):
    one, two = whole_run(method), train(tmp_path / "two", method=method)
    other = train(tmp_path / "other", "seed=2", method=method)
    assert rows(one, "train.csv") == rows(two, "train.csv") and rows(one, "eval.csv") == rows(two, "eval.csv")
    assert torch.equal(parameters(one), parameters(two))
    assert not torch.equal(parameters(one), parameters(other))
    assert rows(one, "eval.csv") != rows(other, "eval.csv")


@pytest.mark.parametrize(
    ("method", "stop_at"), [*(("mlr", stop_at) for stop_at in (20, 40, 49)), *((m, 40) for m in ("playvirtual", "curl", "drq", "sac_ae"))]
)
def test_a_stop_changes_nothing(tmp_path, drawn_frames, whole_run, method, stop_at):
    """N steps, a stop, M more: parameters, moments, replay, random streams and rows are those of N + M steps."""
    whole = whole_run(method)
    first = train(tmp_path, *OWN.get(method, ()), stop_at=stop_at, method=method)
    assert first.code == 128 + signal.SIGTERM and first.step == stop_at + 1
    second = train(tmp_path, *OWN.get(method, ()), method=method)
    assert second.code == 0 and second.step == whole.step
    assert torch.equal(parameters(whole), parameters(second))
    assert_same_end(whole, second)


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["mlr", "baseline"])
def test_a_stop_on_a_gpu_changes_no_more_than_rounding(tmp_path, drawn_frames, method):
    """Fourteen updates of fp32, a stop, and ten more: recorded before the stop, and recorded anew after it."""
    settings = ("device=cuda", "precision=fp32", "action_repeat=8", "env_steps=1200", "train.random_steps=126")
    whole = train(tmp_path / "whole", *settings, method=method)
    first = train(tmp_path / "parts", *settings, method=method, stop_at=139)
    second = train(tmp_path / "parts", *settings, method=method)
    assert first.step == 140 and (whole.code, second.code, second.step) == (0, 0, whole.step)
    assert [t.agent.updates for t in (whole, first, second)] == [24, 14, 24]
    assert all(len(t.agent.recorder.recorded) == 2 for t in (whole, first, second))
    assert torch.equal(whole.agent.generator.get_state(), second.agent.generator.get_state())
    assert (parameters(whole) - parameters(second)).abs().mean() < 1e-4 < (parameters(whole) - parameters(first)).abs().mean()
    assert [r["env_step"] for r in rows(whole, "train.csv")] == [r["env_step"] for r in rows(second, "train.csv")]


def test_a_stop_during_an_evaluation_leaves_no_trace(tmp_path, drawn_frames, whole_run):
    whole = whole_run()
    first = make_trainer(read_config([*SHORT, f"runs={tmp_path}"]), "test")
    real, count = first.judges[first.world].step, []

    def step(action):
        count.append(1)
        if len(count) == 50 + 25:  # in the middle of the second evaluation
            first.stop.signal = signal.SIGINT
        return real(action)

    first.judges[first.world].step = step
    assert first.train() == 130
    first.folder.lock.close()
    second = train(tmp_path)
    assert rows(whole, "eval.csv") == rows(second, "eval.csv") and torch.equal(parameters(whole), parameters(second))


def test_evaluation_leaves_training_alone(tmp_path, drawn_frames, whole_run):
    """More evaluations, the same training."""
    few, many = whole_run(), train(tmp_path, "eval.every=400", "eval.episodes=2")
    assert len(rows(few, "eval.csv")) == 3 and len(rows(many, "eval.csv")) == 2 * 5
    assert torch.equal(parameters(few), parameters(many)) and rows(few, "train.csv") == rows(many, "train.csv")


@pytest.mark.parametrize("method", ["mlr", "playvirtual", "curl", "drq", "sac_ae"])
def test_every_key_is_read(tmp_path, drawn_frames, method):
    """No dead switches."""
    config = read_config([*SHORT, f"method={method}", f"runs={tmp_path}", "env_steps=800", "eval.video=true"])
    trainer = make_trainer(config, "test")
    trainer.train()
    trainer.folder.lock.close()
    assert config.unread() == []


@pytest.mark.parametrize(
    ("method", "scalars", "picture"),
    [("curl", ["curl/accuracy"], None), ("sac_ae", ["sac_ae/pixel_error"], "sac_ae/frames_and_reconstructions")],
)
def test_what_a_method_adds_is_seen_in_tensorboard(drawn_frames, whole_run, method, scalars, picture):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = whole_run(method)
    assert [name in trainer.logger.charts()["diagnostics"] for name in scalars] == [True]
    events = EventAccumulator(str(trainer.folder.path), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert all(np.isfinite([e.value for e in events.Scalars(name)]).all() for name in scalars)
    if picture:
        shown = events.Images(picture)[-1]
        assert shown.width > shown.height  # sixteen frames in two rows


VARIANTS = [
    ["mlr.mask.strategy=spatial"],
    ["mlr.mask.strategy=temporal"],
    ["mlr.target=pixels"],
    ["mlr.action_tokens=false"],
    ["mlr.momentum=false"],
    ["mlr.decoder.depth=1", "mlr.decoder.width=16", "mlr.decoder.heads=2"],
    ["augment.order=[intensity,shift,crop]", "quirks.rl_without_intensity=false"],
    ["augment.order=[crop,affine,blur]"],
    ["augment.order=[resized_crop,intensity]"],
    ["quirks.fc_reinit=false", "quirks.one_mask_per_batch=false", "quirks.mask_ratio_per_block=false", "quirks.no_final_norm=false"],
    ["task=walker_walk"],
    ["chunk=7", "quirks.resampled_crop=true"],
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda v: v[0])
def test_every_choice_trains(tmp_path, drawn_frames, changes):
    trainer = train(tmp_path, "env_steps=800", *changes)
    assert trainer.code == 0 and torch.isfinite(parameters(trainer)).all()
    last = rows(trainer, "eval.csv")[-1]
    assert int(last["env_step"]) == trainer.at and trainer.agent.updates > 0


def test_chunks_change_nothing_but_rounding(tmp_path, drawn_frames):
    few = ("env_steps=600", "train.random_steps=24", "precision=fp32")  # six updates: what rounding changes grows with each
    one, two = (train(tmp_path / chunk[-1], *few, chunk) for chunk in ("chunk=0", "chunk=4"))
    assert one.agent.updates == 6 and two.agent.chunk == 4 < one.agent.chunk
    torch.testing.assert_close(parameters(one), parameters(two), rtol=1e-2, atol=5e-3)


class TestCommandLine:
    """Subprocesses with the real renderer."""

    @pytest.fixture(scope="class")
    @staticmethod
    def finished(tmp_path_factory, root):
        runs = tmp_path_factory.mktemp("runs")
        command = [sys.executable, "-m", "DMControl.train", "preset=debug", f"runs={runs}"]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        return done, runs / "dmcontrol/cartpole_swingup/mlr-debug/seed1", command, time.perf_counter() - start

    def test_a_debug_run_takes_under_a_minute(self, finished):
        done, _, _, seconds = finished
        assert done.returncode == 0, done.stderr
        assert seconds < 60
        assert "finished at 2,000 env steps" in done.stdout and "episode_return" in done.stderr

    def test_what_a_run_leaves_behind(self, finished):
        _, run, _, _ = finished
        result = json.loads((run / "result.json").read_text())
        assert result["env_steps"] == 2000 and len(result["eval_returns"]) == 2 and result["versions"]["torch"]
        with open(run / "eval.csv", newline="") as file:
            found = list(csv.DictReader(file))
        assert [int(r["env_step"]) for r in found] == [0, 0, 1000, 1000, 2000, 2000]
        assert [float(r["episode_return"]) for r in found[-2:]] == pytest.approx(result["eval_returns"], abs=1e-5)
        with open(run / "train.csv", newline="") as file:
            found = list(csv.DictReader(file))
        assert len(found) == 2 and float(found[-1]["loss/mlr"]) > 0 and float(found[-1]["loss/critic"]) > 0
        assert (run / "video" / "final.mp4").stat().st_size > 1000
        assert not (run / "checkpoint" / "frames").exists()

    def test_tensorboard_has_what_its_users_read(self, finished):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        _, run, _, _ = finished
        events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
        events.Reload()
        tags = events.Tags()
        wanted = {"train/episode_return", "eval/episode_return", "loss/critic", "loss/actor", "loss/mlr", "perf/updates_per_second"}
        assert wanted <= set(tags["scalars"])
        assert {"mlr/frames_and_masked", "eval/episode"} <= set(tags["images"])
        assert [e.step for e in events.Scalars("eval/episode_return")] == [0, 1000, 2000]
        picture = events.Images("mlr/frames_and_masked")[-1]
        assert picture.width > picture.height  # a window in two rows

    def test_a_finished_run_says_so(self, finished, capsys):
        _, run, command, _ = finished
        before = {p: p.stat().st_mtime_ns for p in run.glob("*.csv")}
        assert main(command[3:]) == 0 and "has finished: return" in capsys.readouterr().out
        assert before == {p: p.stat().st_mtime_ns for p in run.glob("*.csv")}

    def test_evaluate_a_saved_policy(self, finished, root, capsys, monkeypatch):
        _, run, _, _ = finished
        monkeypatch.chdir(root)
        assert evaluation.main([f"run={run}", "episodes=2", "video=true"]) == 0
        said = capsys.readouterr().out
        assert "2 episodes" in said and "return" in said
        with open(run / "eval.csv", newline="") as file:
            found = list(csv.DictReader(file))
        assert [(r["env_step"], r["seed"]) for r in found[-2:]] == [("2000", "10001")] * 2  # beside the run's own
        assert [r["seed"] for r in found[:6]] == ["1"] * 6
        assert list((run / "video").glob("evaluate_*.mp4"))

    def test_evaluate_judges_as_many_episodes_as_the_run_did(self, finished, root, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(root)
        for own, judged in ((11, 11), (2, 10)):
            run = shutil.copytree(finished[1], tmp_path / str(own))
            config = (run / "config.yaml").read_text()
            assert "\n  episodes: 2\n" in config and "\naction_repeat: 8\n" in config
            config = config.replace("\naction_repeat: 8\n", "\naction_repeat: 125\n")  # episodes of eight frames
            (run / "config.yaml").write_text(config.replace("\n  episodes: 2\n", f"\n  episodes: {own}\n"))
            assert evaluation.main([f"run={run}"]) == 0
            assert f", {judged} episodes, seed 10001" in capsys.readouterr().out

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_saves_and_the_same_command_goes_on(self, tmp_path, root, capsys, number):
        command = [sys.executable, "-m", "DMControl.train", "preset=debug", "action_repeat=20", f"runs={tmp_path}", "eval.video=false"]
        run = tmp_path / "dmcontrol/cartpole_swingup/mlr-debug/seed1"
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
        deadline = time.time() + 60
        while time.time() < deadline and not (run / "train.csv").exists():
            time.sleep(0.1)
        time.sleep(0.3)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number, err
        assert "stopped at" in out
        assert list((run / "checkpoint").glob("step_*"))
        assert main(command[3:]) == 0
        said = capsys.readouterr().out
        assert "resumed at" in said and "finished at 2,000" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say which run"),
        (["run=nowhere"], "not a run folder"),
        (["rum=x"], "did you mean run"),
        (["run=x", "episodes=0"], "between 1"),
    ],
)
def test_evaluate_names_mistakes(arguments, says):
    from DMControl.core.errors import UserError

    with pytest.raises(UserError, match=says):
        evaluation.main(arguments)
