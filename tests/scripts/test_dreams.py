"""The pictures of what a world model believes."""

import imageio.v2 as imageio
import pytest
from PIL import Image

from DMControl.core.errors import UserError
from scripts.media import dreams
from tests.dmcontrol.test_train import drawn_frames, train
from tests.dmcontrol.test_world_model_runs import LONGER

__all__ = ["drawn_frames"]  # a fixture


def test_dreams_of_a_run(tmp_path, drawn_frames, capsys):
    run = train(tmp_path, "env_steps=416", "eval.every=2000", method="dreamer", short=LONGER).folder.path
    capsys.readouterr()
    assert dreams.main([str(run), "steps=6", "context=3", "starts=2", f"figure={tmp_path / 'mine.png'}"]) == 0
    assert "predictions" in capsys.readouterr().out
    with Image.open(run / "dreams/dreams.png") as one, Image.open(tmp_path / "mine.png") as other:
        assert one.size == other.size and one.width > one.height
    shown = imageio.mimread(run / "dreams/dreams.mp4")
    assert len(shown) == 9 and shown[0].shape == (2 * 2 * 64, 2 * 3 * 64, 3)
    with pytest.raises(UserError, match="the episode has 126 frames: lower context=3 or steps=500"):
        dreams.main([str(run), "steps=500", "context=3"])


def test_an_agent_without_a_model_is_named(tmp_path, drawn_frames):
    run = train(tmp_path, "env_steps=408", "eval.every=2000", method="baseline", short=LONGER).folder.path
    with pytest.raises(UserError, match="method=baseline, which has no world model"):
        dreams.main([str(run)])
