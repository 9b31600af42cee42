"""The report on a ledger of one's own: what is left out, in which order, and what it says of runs that do not compare."""

import re
import shutil

import numpy as np

from DMControl.core.run import folder
from scripts.ledger import rows as ledger
from scripts.report import aggregates, data
from scripts.report import report as reporter
from scripts.report.aggregates import Matrix
from scripts.trees import ATARI, DMCONTROL


def text_of(results, *more) -> str:
    assert reporter.main(["--results", str(results), "--figs", str(results / "figs"), "--text", *more]) == 0
    return (results / "REPORT.md").read_text()


def headings(text: str) -> list[str]:
    return re.findall(r"^#{2,4} .+", text, re.MULTILINE)


def test_a_method_on_another_task_is_left_out_and_named(invent, tmp_path):
    rows = [invent(tmp_path, DMCONTROL, "walker_walk", m, s, preset="small") for m in ("mlr", "baseline") for s in (1, 2)]
    rows += [invent(tmp_path, DMCONTROL, "cheetah_run", "madi", 1, preset="small")]
    rows += [invent(tmp_path, DMCONTROL, "hopper_hop", "svea", 1, preset="small")]  # without a published score
    ledger.write(tmp_path, DMCONTROL, rows)
    text = text_of(tmp_path)
    assert "dmcontrol_small_aggregates_100000.png" in text and "dmcontrol_small_profile_100000.png" in text
    left = "Not in the figures, for want of a published task in common with the others: MaDi (cheetah_run); SVEA (hopper_hop)."
    assert left in text


def test_the_methods_with_the_fewest_tasks_are_left_out():
    def matrix(*tasks: str) -> Matrix:
        return Matrix(tasks, np.zeros((1, len(tasks))))

    ours = {"mlr": matrix("a", "b"), "baseline": matrix("a", "b"), "madi": matrix("c"), "svea": matrix("b", "c")}
    assert {m: x.tasks for m, x in aggregates.on_common_tasks(ours).items()} == dict.fromkeys(("mlr", "baseline", "svea"), ("b",))
    assert set(aggregates.on_common_tasks({"mlr": matrix("a"), "madi": matrix("b")})) == {"mlr"}


def test_ones_own_results_stand_first_and_no_heading_takes_in_the_next_section(invent, tmp_path):
    rows = [invent(tmp_path, DMCONTROL, "walker_walk", m, 1, preset=p) for m in ("mlr", "baseline") for p in ("small", "madi_small")]
    ledger.write(tmp_path, DMCONTROL, rows)
    text = text_of(tmp_path)
    own = [h for h in headings(text.partition("## Atari-100k")[0]) if not h.startswith("####")]
    presets = ["### Preset `small`: 2 runs", "### Preset `madi_small`: 2 runs", "### Preset `paper`: no run yet"]
    assert own == ["## DeepMind Control Suite", *presets]
    assert "| cheetah_run |" not in text and "| alien |" not in text.partition("in two places")[0]
    text = text_of(tmp_path, "--all")
    assert "| cheetah_run | no run yet |" in text and "| **MLR, ours** | no run yet |" in text


def test_single_seeds_have_neither_ranges_nor_intervals(invent, tmp_path):
    rows = [invent(tmp_path, DMCONTROL, "walker_walk", m, 1, preset="small", score=400.0) for m in ("mlr", "baseline", "madi")]
    rows[2]["worlds"] = "color_hard:10=300 clean[suite]:10=400"
    ledger.write(tmp_path, DMCONTROL, rows)
    text = text_of(tmp_path)
    assert not re.findall(r"range|interval|bootstrap|deviation|shaded|brackets", text)
    assert "of one seed each" in text and "Ours: one seed, each judged by 10 episodes" in text
    rows += [invent(tmp_path, DMCONTROL, "walker_walk", "mlr", 2, preset="small", score=300.0)]
    ledger.write(tmp_path, DMCONTROL, rows)
    text = text_of(tmp_path)
    assert "Ours, in brackets: range of the seeds." in text and "shaded: range of the seeds" in text and "sample standard deviation" in text


def test_a_preset_of_ones_own_says_what_it_changes(invent, tmp_path, monkeypatch):
    shutil.copytree(ATARI.load("settings").CONFIGS, tmp_path / "atari")
    monkeypatch.setattr(ATARI.load("settings"), "CONFIGS", tmp_path / "atari")
    (tmp_path / "atari/preset/mine.yaml").write_text("# @package _global_\ndefaults: [debug]\nsteps: 300\nmlr: {mask: {ratio: 0.6}}\n")
    rows = [invent(tmp_path, ATARI, "pong", "mlr", s, preset="mine") for s in (1, 2)]
    rows += [
        invent(tmp_path, ATARI, "pong", "mlr", 3, preset="small", changed="env.max_steps=500"),
        invent(tmp_path, ATARI, "pong", "mlr", 1),
    ]
    rows += [invent(tmp_path, ATARI, "boxing", "mlr", 1, preset="gone")]
    rows[1]["commit"] = "1234567890ab+"
    ledger.write(tmp_path, ATARI, rows)
    text = text_of(tmp_path)
    assert "`mine` inherits `debug` and sets `steps=300` `mlr.mask.ratio=0.6`." in text
    assert "`gone` has no file in configs/atari/preset/ any more" in text
    assert "</sup> pong, MLR: seeds 1, 2 played games that were cut short after 120 steps (published: 27,000)." in text
    assert "</sup> pong, MLR: seed 2 ran with code that was not committed (commit 1234567890ab+)." in text
    assert text.count("cut short") == text.count("not committed") == 1, "the others are as published"
    assert {r.preset: r.game_limit for r in data.load_runs(tmp_path, ATARI)} == {"mine": 120, "small": 500, "paper": None, "gone": None}


def test_untracked_source_files_count_as_uncommitted(root, tmp_path, monkeypatch):
    def git(*words: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        assert folder.subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True).returncode == 0

    place = tmp_path / "DMControl/core/run/folder.py"
    place.parent.mkdir(parents=True)
    place.write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    monkeypatch.setattr(folder, "__file__", str(place))
    (tmp_path / "notes.txt").write_text("of mine")
    (tmp_path / "runs/config").mkdir(parents=True)
    (tmp_path / "runs/config/config.yaml").write_text("of a run")
    assert re.fullmatch(r"[0-9a-f]{12}", folder.commit()), "what no run reads does not count"
    for name in ("DMControl/methods/mine.py", "configs/dmcontrol/preset/mine.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        assert folder.commit().endswith("+"), name
        (tmp_path / name).unlink()
    place.write_text("x = 1")
    assert folder.commit().endswith("+")
