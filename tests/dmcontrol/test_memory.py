"""What a run will take, known before it is built."""

import pytest
import torch

from DMControl.core.errors import UserError
from DMControl.core.machine import Precision
from DMControl.memory import capacity, memory
from DMControl.settings import read_config
from DMControl.train import make_trainer

FP32 = Precision(torch.device("cpu"), torch.float32)


def test_the_paper_presets_memory_is_what_it_takes():
    """README: 4.2 GB at the peak with 100,000 transitions, libraries included."""
    config = read_config(["task=cheetah_run", "env_steps=400000"])
    assert capacity(config) == 100_000
    assert capacity(read_config(["task=walker_walk", "method=dreamer", "env_steps=500000"])) == 250_000, "it keeps all of a run"
    assert 3.2 < sum(memory(config, 6, FP32).values()) / 2**30 < 4.4


@pytest.mark.parametrize(("method", "key"), [("dreamer", "dreamer.model_updates"), ("slac", "train.catch_up")])
def test_what_comes_after_the_updates_of_the_model_alone_is_counted(method, key):
    alone, together = (memory(read_config(["preset=debug", f"method={method}", f"{key}={n}"]), 2, FP32) for n in (100, 0))
    assert alone == together


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["replay.capacity=1e9", "env_steps=1e9", "image.size=512"], r"needs about \d{5,}\.\d+ GB of RAM \(\d{5,}\.\d+ GB replay"),
        (["sac.hidden=1000000"], r"needs about \d{5,}\.\d+ GB of RAM .*\d{5,}\.\d+ GB networks"),
        (["sac.batch_size=1000000000", "chunk=1000000000"], r"needs about \d{5,}\.\d+ GB of RAM .*\d{5,}\.\d+ GB activations"),
    ],
)
def test_a_run_that_cannot_fit_says_so_before_it_starts(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        make_trainer(read_config(["preset=debug", f"runs={tmp_path}", *changes]), "test")
    assert not list(tmp_path.iterdir())


def test_the_overlay_images_are_counted():
    config = read_config(["preset=debug", "method=svea", "strong_augmentation.images=100000"])
    assert memory(config, 2, FP32)["overlay images"] >= 100_000 * 128 * 128 * 3
    assert "overlay images" not in memory(read_config(["preset=debug", "method=mlr"]), 2, FP32)


def test_clips_of_the_worlds_are_counted(tmp_path):
    def kept(*settings):
        return memory(read_config(["method=svea", "preset=madi", *settings]), 6, FP32).get("clips", 0)

    assert kept() == 8 * 500 * 128**2 * 3 and kept("eval.worlds=[color_hard]") == 0
    assert (
        kept(f"data.video={tmp_path}") == kept() + 800_000_000 and kept(f"data.video={tmp_path}", f"data.davis={tmp_path}") == 800_000_000
    )
