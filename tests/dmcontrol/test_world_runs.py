"""Runs that are trained and judged in worlds."""

import csv
import signal

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from DMControl import evaluate as evaluation
from DMControl.core import machine
from DMControl.core.errors import UserError
from DMControl.core.run.config import Config, plain
from DMControl.settings import read_config
from DMControl.train import make_trainer
from DMControl.worlds.catalogue import WorldName
from scripts.media import masks


def train(tmp_path, *arguments, stop_at=None):
    base = ["preset=debug", "method=madi", f"runs={tmp_path}", "eval.video=false", "env_steps=3600", "eval.every=3600", "eval.episodes=1"]
    config = read_config(
        [*base, "world=color_hard", "eval.worlds=[distracting_cs]", "action_repeat=40", *(arguments or ["eval.intensities=[0.1,0.5]"])]
    )
    trainer = make_trainer(config, "test")
    if stop_at is not None:
        choose = trainer.choose

        def stopping(random):
            if trainer.step >= stop_at:
                trainer.stop.signal = signal.SIGTERM
            return choose(random)

        trainer.choose = stopping
    trainer.train()
    trainer.folder.lock.close()
    return trainer


def eval_rows(path):
    with open(path / "eval.csv", newline="") as file:
        return [{k: v for k, v in r.items() if k != "hours"} for r in csv.DictReader(file)]


def test_a_run_in_one_world_judged_in_others(tmp_path, capsys):
    """Rows per world and intensity; a stop changes nothing; then `evaluate worlds=...` adds its own, with table and plot."""
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_at=70)
    second = train(tmp_path / "parts")
    assert whole.config.unread() == []
    found = eval_rows(whole.folder.path)
    assert found == eval_rows(second.folder.path)
    assert torch.equal(whole.replay.store.frames, second.replay.store.frames)  # the training world goes on where it was
    same = zip(whole.agent.pixels.parameters(), second.agent.pixels.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert [(r["world"], r["intensity"], r["source"]) for r in found[:3]] == [
        ("color_hard", "", "procedural"),
        ("distracting_cs", "0.1", "procedural"),
        ("distracting_cs", "0.5", "procedural"),
    ]
    assert len(found) == 2 * 3
    path = whole.folder.path

    events = EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert {"eval/episode_return", "eval_distracting_cs_0.5_procedural/episode_return", "agent/mask"} <= set(tags["scalars"])
    assert {"masks/color_hard_procedural", "masks/distracting_cs_0.5_procedural"} <= set(tags["images"])

    assert evaluation.main([f"run={path}", "threads=1", "episodes=2", "worlds=clean,distracting_cs", "intensities=0.05,0.4"]) == 0
    added = eval_rows(path)[6:]
    assert [(r["world"], r["intensity"], r["episode"]) for r in added] == [
        (w, i, str(e)) for w, i in (("clean", ""), ("distracting_cs", "0.05"), ("distracting_cs", "0.4")) for e in (0, 1)
    ]
    said = capsys.readouterr().out
    assert "distracting_cs_0.4 (procedural)" in said and "madi (overlay images procedural)" in said
    (table,) = path.glob("worlds_*.md")
    assert table.read_text().count("(procedural)") == 2 and (path / f"{table.stem}.png").stat().st_size > 1000
    with pytest.raises(UserError, match="did you mean video_hard"):
        evaluation.main([f"run={path}", "worlds=video_hart"])
    with pytest.raises(UserError, match=r"intensity 0.7 does not exist"):
        evaluation.main([f"run={path}", "worlds=distracting_cs", "intensities=0.7"])
    with pytest.raises(UserError, match=r"argument data.images=/none is unknown"):  # an evaluation overlays nothing
        evaluation.main([f"run={path}", "data.images=/none"])
    gone = Config(plain(whole.config))
    gone["data"]["images"] = str(tmp_path / "gone")  # it judges without what it was trained with
    agent, _ = evaluation.load_agent(path, gone, whole.env.action_dim, machine.choose_precision("fp32", torch.device("cpu")))
    assert torch.equal(agent.critic.q1[0].weight, whole.agent.critic.q1[0].weight) and gone.strong_augmentation.kind == "overlay"
    with pytest.raises(UserError, match=r"data.video=/none is not a folder"):
        evaluation.main([f"run={path}", "worlds=video_easy", "data.video=/none"])


def test_masks_of_a_run(tmp_path):
    """Frame, mask and masked frame, as picture and as video."""
    path = train(tmp_path, "env_steps=2200", "eval.worlds=[]").folder.path
    assert masks.main([str(path), "worlds=clean,video_hard", "steps=5", "threads=1"]) == 0
    assert {p.name for p in (path / "masks").iterdir()} == {"clean.png", "clean.mp4", "video_hard.png", "video_hard.mp4", "all.png"}
    assert all(p.stat().st_size > 500 for p in (path / "masks").iterdir())
    config = read_config(["preset=debug", "method=madi"])
    agent = evaluation.load_agent(path, config, 1, machine.choose_precision("fp32", torch.device("cpu")))[0]
    seen, _ = masks.look(agent, config, WorldName("video_hard"), 2, torch.device("cpu"))
    frame, mask, masked = (p.astype(float) for p in seen[1])
    np.testing.assert_allclose(masked, frame * mask / 255, atol=1.5)
    with pytest.raises(UserError, match="say which run"):
        masks.main(["worlds=clean"])
