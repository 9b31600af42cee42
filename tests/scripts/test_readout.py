"""What is said of an encoder's latents: the measure on data whose answer is known, then real runs of both trees."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from DMControl.core import machine
from DMControl.core.errors import UserError
from DMControl.core.method.frames import Frames
from DMControl.core.run.config import Config
from DMControl.core.run.folder import read_config
from scripts.probes import measurements
from scripts.probes.readout import LONGEST, STRETCH, Source, collect, compare, effective_rank, groups, main, play, readout
from scripts.report import report as reporter
from scripts.trees import ATARI, DMCONTROL

FP32 = machine.choose_precision("fp32", torch.device("cpu"))
ARGUMENTS = {"DMControl": ("env_steps=1000",), "Atari": ("game=boxing", "eval.final_episodes=1")}


@pytest.fixture(autouse=True)
def _few_episodes(monkeypatch):
    monkeypatch.setattr("scripts.probes.readout.EPISODES", 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each tree, by its name."""
    folder = tmp_path_factory.mktemp("runs")
    shared = ("preset=debug", "eval.episodes=1", "eval.video=false", f"runs={folder}")
    assert [tree.load("train").main([*shared, *ARGUMENTS[tree.package]]) for tree in (DMCONTROL, ATARI)] == [0, 0]
    return {"DMControl": folder / "dmcontrol/cartpole_swingup/mlr-debug/seed1", "Atari": folder / "atari/boxing/mlr-debug/seed1"}


def test_r2_of_what_is_there_and_of_what_is_not():
    """Fitted with fewer frames than latents have dimensions, so that a map without the right strength would invent anything."""
    rng = np.random.default_rng(0)
    latents = [rng.normal(size=(n, 80)) for n in (60, 200, 200)]
    latents = [z @ np.diag(np.logspace(1, -2, 80)) for z in latents]  # the first directions are the large ones
    states = [np.stack([z[:, 0] + 3 * z[:, 1] - 7, np.tanh(z[:, 0] / 30), rng.normal(size=len(z))], 1) for z in latents]
    linear, bent, absent = readout(latents, states)
    assert linear > 0.99 and 0.9 < bent < linear and absent < 0.05


def test_each_part_has_its_own_use():
    """The answer changes with the last part alone: what it holds is neither fitted nor chosen by."""
    rng = np.random.default_rng(1)
    latents = [rng.normal(size=(300, 5)) for _ in range(3)]
    states = [z[:, :1] * 2 for z in latents]
    assert readout(latents, states)[0] > 0.99
    assert readout(latents, [*states[:2], -states[2]])[0] < -1
    assert readout(latents, [states[0], -states[1], states[2]])[0] < 0.5, "the middle part asks for the strongest ridge"


def test_effective_rank():
    rng = np.random.default_rng(0)
    line = rng.normal(size=(500, 1)) * np.array([[1.0, -2.0, 3.0]]) + 5
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(rng.normal(size=(20_000, 6))) == pytest.approx(6, rel=0.01)
    dead = np.hstack([line, np.full((500, 2), 4.0), rng.normal(size=(500, 1)) * 1e-159])
    assert effective_rank(dead) == pytest.approx(1) and effective_rank(dead[:, 3:5]) == 1


class Counter:
    """A source whose picture and state are the number of steps so far; it is its own environment."""

    length = 40

    def __init__(self):
        self.env, self.chosen = self, {"random": 0, "policy": 0}

    @property
    def over(self):
        return self.step >= self.length

    def start(self, episode):
        self.step = 0

    def observation(self):
        return Frames.of_images(torch.full((1, 1, 1, 1), self.step, dtype=torch.int64))

    def state(self):
        return {"step": self.step}

    def random(self, rng):
        self.chosen["random"] += 1
        return self.step

    def choose(self, agent):
        self.chosen["policy"] += 1
        return self.step

    def follow(self, action):
        assert action == self.step
        self.step += 1


class Numbers(Counter):
    """Two numbers are the state, and the picture's two pixels. An agent here is how much of each pixel its latents hold."""

    benchmark, task, precision = "known", "numbers", FP32

    def start(self, episode):
        self.step, self.numbers = 0, np.random.default_rng(episode).integers(0, 256, (self.length, 2))

    def observation(self):
        return Frames.of_images(torch.from_numpy(self.numbers[self.step].astype(np.uint8)).reshape(1, 2, 1, 1))

    def state(self):
        return dict(zip(("first", "second"), self.numbers[self.step].tolist(), strict=True))

    def load(self, run, config):
        return SimpleNamespace(objective=None, shares=torch.tensor({"both": [1.0, 1.0], "one": [1.0, 0.0]}[run.name])), 500

    def untrained(self, config):
        return SimpleNamespace(objective=None, shares=torch.zeros(2))

    def latent(self, agent, images):
        return images.flatten(1) * agent.shares


def quantities(row):
    return {name: float(value) for name, _, value in (part.partition("=") for part in row["each"].split())}


def test_encoders_whose_knowledge_is_known():
    """One holds the whole state, one half of it, one nothing."""
    configs = {Path(name): Config({"method": name, "preset": "any", "seed": 1, "name": ""}) for name in ("both", "one")}
    rows = {row["method"]: row for row in compare(Numbers(), configs)}
    expected = {"untrained": (0, 0, 1, "0"), "both": (1, 1, 2, "500"), "one": (1, 0, 1, "500")}
    assert list(rows) == list(expected)
    for method, (first, second, rank, step) in expected.items():
        row = rows[method]
        assert quantities(row) == pytest.approx({"first": first, "second": second}, abs=0.1), method
        assert float(row["r2"]) == pytest.approx((first + second) / 2, abs=0.05)
        assert float(row["rank"]) == pytest.approx(rank, abs=0.1) and row["step"] == step


def test_an_episode_pairs_each_observation_with_its_state():
    source = Counter()
    seen = list(play(source, None, 0, np.random.default_rng(0)))
    assert [(image.item(), state["step"], action) for image, state, action in seen] == [(i, i, i) for i in range(40)]
    assert sum(source.chosen.values()) == 40
    source.length = 5000
    assert len(list(play(source, None, 0, np.random.default_rng(0)))) == LONGEST
    assert abs(source.chosen["random"] - source.chosen["policy"]) < LONGEST / 3 and source.chosen["random"] > STRETCH


def test_images_and_states_belong_together(runs):
    """The pixels themselves tell where the cart and a boxer are. States of another step would not be read from them as well."""
    for tree, wanted in ((DMCONTROL, "position0"), (ATARI, "byte33")):  # the cart; the black boxer
        run = runs[tree.package]
        config = read_config(run)
        source, rng = Source(tree, config, FP32), np.random.default_rng(7)
        source.choose = lambda agent, source=source, rng=rng: source.random(rng)  # what a short run learns is no matter here
        seen = collect(source, [source.load(run, config)[0]] * 2)
        images, states, names = seen.images, seen.states, seen.names
        assert [len(i) for i in images] == [len(s) for s in states] and images[0].dtype == torch.uint8
        column = names.index(wanted)
        pixels = [torch.nn.functional.avg_pool2d(i.float(), 2).flatten(1).double().numpy() for i in images]
        late = [np.roll(s, 25, 0) for s in states]
        right, wrong = (readout(pixels, [s[:, [column]] for s in some])[0] for some in (states, late))
        assert right > 0.5 and wrong < 0.2, (tree.name, right, wrong)
        k = config.mlr.window
        assert [(i.shape[1:], i.dtype, len(i), len(a)) for i, a in seen.stretches] == [(images[0].shape[1:], torch.uint8, k, k)] * 2


def test_rows_of_real_runs(runs, tmp_path, capsys):
    results = tmp_path / "results"
    assert main([*map(str, runs.values()), f"results={results}", "threads=1"]) == 0
    first = (results / "readout.csv").read_text()
    rows = measurements.READOUT.read(results)
    assert [(r["benchmark"], r["task"], r["method"], r["step"]) for r in rows] == [
        ("atari", "boxing", "mlr", "960"), ("atari", "boxing", "untrained", "0"),
        ("dmcontrol", "cartpole_swingup", "mlr", "1000"), ("dmcontrol", "cartpole_swingup", "untrained", "0"),
    ]  # fmt: skip
    printed = capsys.readouterr().out
    for r in rows:  # how good the encoders are is no matter here: so short a training may teach them nothing
        each = list(quantities(r).values())
        assert float(r["r2"]) == pytest.approx(np.mean(each), abs=0.01) and 0 <= min(each) and max(each) <= 1 and float(r["rank"]) >= 1
        assert f"R2 {r['r2']}, rank {r['rank']}" in printed
        assert all(0 <= float(r[key]) < 4 if r[key] else r["method"] == "untrained" for key in measurements.LOSSES)
    assert [all(r[key] for key in measurements.LOSSES) for r in rows if r["method"] == "mlr"] == [True, True]

    assert main([str(runs["DMControl"]), f"results={results}", "threads=1"]) == 0
    assert (results / "readout.csv").read_text() == first, "the same again, and the other task's rows are kept"

    report = ["--results", str(results), "--figs", str(tmp_path / "figs")]
    assert reporter.main(report) == 0
    score = float(rows[2]["r2"])
    losses = " / ".join(f"{float(rows[2][key]):#.3g}" for key in measurements.LOSSES)
    (line,) = (
        x for x in (results / "REPORT.md").read_text().splitlines() if x.startswith("| cartpole_swingup | debug | MLR | 1,000 env steps |")
    )
    assert f"| {score:.2f} (1 seed) |" in line and line.endswith(f"| {losses} |")
    (results / "readout.csv").write_text(first.replace(f",{rows[2]['r2']},", ",0.9999,"))
    with pytest.raises(UserError, match=r"rows are written by scripts/readout\.sh only"):
        reporter.main(report)


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    other = tmp_path / "seed9"
    other.mkdir()
    config = (runs["DMControl"] / "config.yaml").read_text()
    assert "\naction_repeat: 8\n" in config and "\nseed: 1\n" in config
    repeat = config.replace("\naction_repeat: 8\n", "\naction_repeat: 4\n")
    for text, says in (
        (config, "one run counts once"),
        (repeat.replace("\nseed: 1\n", "\nseed: 2\n"), "different settings of action_repeat"),
        (config.replace("\naction_repeat: 8\n", "\naction_repeat: eight\n"), "action_repeat"),
    ):
        (other / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=says):
            groups([runs["DMControl"], other])
    (tmp_path / "readout.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        main([str(runs["DMControl"]), f"results={tmp_path}"])
    for arguments, says in (
        ([], "say which runs"),
        (["device=cpu", "resluts=x", "a"], "results"),
        ([str(tmp_path), f"results={tmp_path / 'none'}"], "no config.yaml"),
    ):
        with pytest.raises(UserError, match=says):
            main(arguments)
