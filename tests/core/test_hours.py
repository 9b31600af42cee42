"""The start of a run says how many hours are ahead if they are many."""

import importlib
import json

import pytest

import Atari.settings
import Atari.train
import DMControl.settings
import DMControl.train
from DMControl.core.run import hours

EPYC, PAPER = "AMD EPYC with AVX-512-BF16, 2 threads", ["method=mlr", "preset=paper"]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """bench(row, ...) is all that was measured."""

    def call(*rows: tuple[str, str, str, float], tree: str = "DMControl", number_format: str = "float32") -> None:
        names = ("method", "preset", "hardware", "ms_per_update")
        found = [{"tree": tree, "precision": number_format, **dict(zip(names, row, strict=True))} for row in rows]
        (tmp_path / "some.json").write_text(json.dumps({"results": found}))

    monkeypatch.setattr(hours, "BENCH", tmp_path)
    return call


def test_paper_on_a_cpu_takes_days_and_small_is_quiet():
    """By the measurements in results/bench."""
    config = DMControl.settings.read_config(PAPER)
    said = hours.ahead(config, EPYC, "bfloat16", 24_000)
    assert said.startswith("note: about 48 hours are ahead") and f"measured mlr at preset=paper ({EPYC})" in said
    assert "about 96 hours" in hours.ahead(config, EPYC.replace("2 threads", "1 thread"), "bfloat16", 24_000), "half the threads"
    assert not hours.ahead(config, EPYC, "bfloat16", 5_000), "the end of a run that goes on"
    assert not hours.ahead(config, "NVIDIA H100", "bfloat16", 24_000), "a GPU"
    assert not hours.ahead(DMControl.settings.read_config(["preset=small"]), EPYC, "float32", 12_000)


def test_the_most_similar_measurement_counts(bench):
    hour = 3.6e6  # ms
    config = DMControl.settings.read_config(["method=baseline", "preset=paper"])
    bench(("mlr", "paper", "X with AVX2, 2 threads", hour), ("mlr", "paper", "X with AMX, 2 threads", 2 * hour), ("sac", "paper", EPYC, 9))
    for here, count in (("Y with AVX2, 2 threads", 20), ("Y with AMX, 2 threads", 40), ("Y with AVX-512, 2 threads", 20)):
        assert f"about {count} hours" in hours.ahead(config, here, "float32", 20)
    bench(("mlr", "paper", EPYC, hour), ("baseline", "paper", "X with AVX2, 4 threads", 2 * hour))
    assert "about 80 hours" in (said := hours.ahead(config, EPYC, "float32", 20)) and "measured baseline" in said, "the method comes first"
    assert not hours.ahead(config, EPYC, "bfloat16", 20), "another format"
    dreamer = DMControl.settings.read_config(["method=dreamer", "preset=paper"])
    assert not hours.ahead(dreamer, EPYC, "float32", 20), "an agent of its own is not like MLR"


@pytest.mark.parametrize("tree", [DMControl, Atari], ids=["DMControl", "Atari"])
def test_the_start_of_a_run_says_it(tree, tmp_path, monkeypatch, capsys):
    module = importlib.import_module(f"{tree.__name__}.core.run.hours")
    row = {"tree": tree.__name__, "method": "mlr", "preset": "debug", "hardware": EPYC, "precision": "float32", "ms_per_update": 3.6e6}
    (tmp_path / "some.json").write_text(json.dumps({"results": [row]}))
    monkeypatch.setattr(module, "BENCH", tmp_path)
    config = tree.settings.read_config(["preset=debug", f"runs={tmp_path}", "precision=fp32", "device=cpu"])
    tree.train.make_trainer(config, "test").folder.lock.close()
    assert "hours are ahead" in capsys.readouterr().out
