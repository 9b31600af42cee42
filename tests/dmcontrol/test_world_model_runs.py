"""Whole runs of the agents with a world model: a stop in mid-episode and in mid-update, settings, pictures."""

import signal

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import assert_same_end, drawn_frames, rows, train

from DMControl.core.machine import Precision
from DMControl.core.run.progress import Bar
from DMControl.evaluate import load_agent
from DMControl.settings import read_config
from DMControl.train import make_trainer

__all__ = ["drawn_frames"]  # a fixture
METHODS = ("dreamer", "planet", "slac")
LONGER = ("preset=debug", "env_steps=1200", "eval.video=false", "eval.episodes=1")  # an episode has room for a chunk


def weights(agent):
    return torch.cat([p.detach().flatten() for module in agent.modules.values() for p in module.parameters()])


def stopped_in_updates(tmp_path, method, at):
    """The beginning of a run, stopped after this update, which others at the same step should follow."""
    trainer = make_trainer(read_config([*LONGER, f"method={method}", f"runs={tmp_path}"]), "test")
    update = trainer.agent.update

    def stopping(replay, step):
        done = update(replay, step)
        if trainer.agent.updates == at:
            trainer.stop.signal = signal.SIGTERM
        return done

    trainer.agent.update = stopping
    assert trainer.train() == 128 + signal.SIGTERM and trainer.owed > 0
    trainer.folder.lock.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_changes_nothing(tmp_path, drawn_frames, method):
    """N steps, a stop, M more are N + M: networks, moments, acting state, replay and rows. Stops: in random steps, episode, updates."""
    whole = train(tmp_path / "whole", method=method, short=LONGER)
    assert whole.code == 0 and whole.agent.updates > 2 and whole.acting.abs().max() > 0
    for stop_at in (30,) if method == "slac" else (30, 77):  # SLAC's many updates are at step 51
        first = train(tmp_path / "parts", stop_at=stop_at, method=method, short=LONGER)
        assert first.step == stop_at + 1 and not first.env.over
    stopped_in_updates(tmp_path / "parts", method, first.agent.updates + 1)
    second = train(tmp_path / "parts", method=method, short=LONGER)
    assert second.code == 0 and second.step == whole.step and second.agent.updates == whole.agent.updates
    assert torch.equal(weights(whole.agent), weights(second.agent)) and torch.equal(whole.acting, second.acting)
    assert_same_end(whole, second)
    again, step = load_agent(whole.folder.path, whole.config, 1, Precision(torch.device("cpu"), torch.float32))
    assert step == whole.step and torch.equal(weights(again), weights(whole.agent))


@pytest.mark.parametrize("method", METHODS)
def test_every_key_is_read_and_pictures_are_drawn(tmp_path, drawn_frames, capsys, method):
    later = ["env_steps=2400", "train.catch_up=0"] if method == "planet" else ["env_steps=1200"]  # which counts whole episodes
    config = read_config(["preset=debug", f"method={method}", f"runs={tmp_path}", "eval.episodes=1", *later])
    trainer = make_trainer(config, "test")
    assert trainer.train() == 0
    trainer.folder.lock.close()
    random = {"dreamer": 400, "planet": 1000, "slac": 400}[method]  # 400 env steps, an episode, 50 steps at action repeat 8
    assert f"action repeat {config.action_repeat}; the first {random:,} env steps are random" in capsys.readouterr().out
    assert config.unread() == []
    events = EventAccumulator(str(trainer.folder.path), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    for name in trainer.agent.diagnostics:
        assert all(np.isfinite([e.value for e in events.Scalars(name)]).all() for name in trainer.agent.diagnostics), name
    shown = events.Images(f"{method}/frames_and_reconstructions_and_predictions")[-1]
    assert (shown.width, shown.height) == (10 * 66 + 2, 3 * 68), "ten of 50 observations"


def test_the_bar_goes_on_while_a_step_has_many_updates(capsys):
    bar = Bar(1000, 0, "env step")
    bar.bar.mininterval = 0
    for _ in range(20):
        bar.advance(50)
    capsys.readouterr()
    bar.advance(0, updates_left="9,000")
    assert "updates_left=9,000" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_leaves_training_alone(tmp_path, drawn_frames, method):
    few, many = (train(tmp_path / every, f"eval.every={every}", "env_steps=1200", method=method, short=LONGER) for every in ("2000", "400"))
    assert torch.equal(weights(few.agent), weights(many.agent)) and rows(few, "train.csv") == rows(many, "train.csv")
