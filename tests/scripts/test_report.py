"""What the report says of a ledger, and what it never says."""

import csv
import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from rliable import metrics

from DMControl.core.errors import UserError
from scripts.ledger import rows as ledger
from scripts.report import aggregates, comparisons, data, figures
from scripts.report import report as reporter
from scripts.report.page import Page
from scripts.report.tables import worlds_table
from scripts.trees import ATARI, DMCONTROL, TREES


def report(root, results, figs, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "scripts.report.report", "--results", str(results), "--figs", str(figs), "--resamples", "100", *more]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def published(root):
    return {b: data.load_published(root / "results/published", b) for b in TREES}


def test_two_calls_give_the_same_bytes_and_the_right_numbers(root, invented_ledger, tmp_path, published):
    calls = [report(root, invented_ledger, tmp_path / f"figs{i}") for i in range(2)]
    for call in calls:
        assert call.wait(timeout=200) == 0, call.stderr.read()
    sums = [{f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (tmp_path / f"figs{i}").iterdir()} for i in range(2)]
    assert sums[0] == sums[1] and len(sums[0]) == 22 and "ablations.png" in sums[0]
    for part in ("curves_steps", "curves_hours", "aggregates_400000", "profile_400000", "improvement_400000"):
        assert {f"atari_paper_{part}.png", f"atari_paper_{part}.svg"} <= set(sums[0])
    text = (invented_ledger / "REPORT.md").read_text().replace("figs1", "figs0")
    runs = data.load_runs(invented_ledger, DMCONTROL)
    scores = [r.score for r in runs if (r.task, r.method, r.name) == ("cheetah_run", "mlr", "")]
    mean, std = np.mean(scores), np.std(scores, ddof=1)
    row = next(line for line in text.splitlines() if line.startswith("| cheetah_run | "))
    cells = [c.strip() for c in row.split("|")[1:-1]]
    assert cells[1] == f"{mean:.0f} ± {std:.0f} (3 seeds)" and cells[2] == "482 ± 38" and cells[3] == f"{mean - 482:+.0f}"
    assert "| reacher_easy | " not in text and "no run yet" not in text.partition("## Atari")[0]
    assert "2 of 6 tasks, 3 seeds" in text and "3 of 26 games, 2 seeds" in text  # the run that was cut off counts nowhere
    assert "| finger_spin | MLR | paper |  | 1 | 20,000 | 100,000 |" in text
    assert "`mlr.mask.ratio=0.9`" in text and "`mlr.target=pixels` | dmcontrol" in text


def test_an_empty_ledger_shows_no_number_of_ours(root, tmp_path):
    (tmp_path / "figs").mkdir()
    stale = tmp_path / "figs/dmcontrol_paper_curves_steps.png"
    stale.write_bytes(b"of a former ledger")
    other = tmp_path / "figs/atari_drawn_by_somebody_else.png"
    other.write_bytes(b"not ours")
    call = report(root, tmp_path, tmp_path / "figs", "--all")
    assert call.wait(timeout=60) == 0, call.stderr.read()
    text = (tmp_path / "REPORT.md").read_text()
    assert "Runs in the ledger: 0 on DeepMind Control Suite, 0 on Atari-100k." in text
    assert not re.search(r"\d seeds?\)", text)
    for line in text.partition("in two places, atari")[0].splitlines():
        if line.startswith(("| **MLR, ours**", "| **Baseline, ours**", "| alien", "| walker_walk")):
            assert line.count("no run yet") in (1, 2)
    assert list((tmp_path / "figs").iterdir()) == [other]


def test_published_aggregates_agree_with_the_published_scores(published):
    """DMControl's from the means per task, to the rounding of the table; IQM and gap of the human and the random policy."""
    dmcontrol = published[DMCONTROL]
    assert len(dmcontrol.aggregates) == 2 * 2 * 10
    assert aggregates.recomputed(dmcontrol) <= 0.05 + 1e-9
    atari = published[ATARI]
    for who in ("human", "random"):
        for name in ("iqm", "optimality_gap"):
            again = aggregates.published_on(ATARI, atari, 400_000, who, atari.tasks, name)
            assert again == pytest.approx(atari.aggregates[400_000, name, who], abs=1e-9)


def test_the_copies_of_the_published_tables_hold_the_games_scores(root, published):
    from Atari.games import SCORES

    atari = published[ATARI]
    assert {g: (atari.scores[400_000, g, "human"], atari.scores[400_000, g, "random"]) for g in atari.tasks} == SCORES
    rows = []
    for name in ("dmcontrol", "dmcontrol_spr"):
        with open(root / f"results/published/{name}.csv", newline="") as handle:
            rows += list(csv.DictReader(handle))
    dmcontrol = published[DMCONTROL]
    assert len(rows) == len(dmcontrol.scores) and len(dmcontrol.tasks) == 6
    assert dmcontrol.aggregates[100_000, "median", "spr"] == 718.5 and dmcontrol.aggregates[500_000, "median", "spr"] == 920


def test_statistics_follow_rliable_and_one_seed():
    rng = np.random.default_rng(0)
    ours, other = rng.normal(1, 1, (5, 7)), rng.normal(0.5, 1, (4, 7)).round(1)
    ours[0] = other[0]  # ties count half
    assert aggregates.improvement(ours, other)[1] is None, "four seeds"
    other = np.concatenate([other, ours[:1] - 0.5])
    value, bounds = aggregates.improvement(ours, other)
    assert value == pytest.approx(metrics.probability_of_improvement(ours, other))
    assert bounds[0] <= value <= bounds[1] and aggregates.improvement(ours, other) == (value, bounds)
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    point, (low, high) = aggregates.interval(ours, metrics.aggregate_iqm)
    assert np.random.rand() == expected  # the caller's stream is left as it was
    assert point == metrics.aggregate_iqm(ours) and low < point < high
    assert aggregates.interval(ours[:1], metrics.aggregate_iqm)[1] is None
    both = np.stack([ours, 2 * ours], -1)  # two points of a curve
    assert aggregates.iqm_curve(both) == pytest.approx([point, 2 * point])


def test_below_five_seeds_the_bounds_are_the_range_of_the_seeds():
    """Equal scores at two steps have equal bounds, where a bootstrap of three seeds jitters."""
    scores = np.array([[0.0, 10.0], [4.0, 60.0], [5.0, 20.0]])  # 3 seeds, 2 tasks
    assert aggregates.interval(scores, aggregates.task_mean) == (pytest.approx(16.5), (5.0, 32.5))
    assert aggregates.interval(scores[:, :1], metrics.aggregate_optimality_gap)[1] == (0.0, 1.0), "falls as scores rise"
    share, bounds = aggregates.profile(scores, np.array([4.5, 15.0]))
    assert share == pytest.approx([4 / 6, 2 / 6]) and bounds.tolist() == [[0.5, 0.0], [1.0, 0.5]]
    assert aggregates.bounds_name([3, 2, 1]) == "range of the seeds" and aggregates.bounds_name([5, 1]) == "95% bootstrap interval"
    assert "range" in aggregates.bounds_name([3, 5]) and "bootstrap" in aggregates.bounds_name([3, 5])
    points = tuple({"frame": float(s), "hours": 1.0, "mean": 7.0} for s in range(20))
    runs = [data.Run(*["x"] * 4, k, 19, 19, True, 7.0, 1.0, "", "", {}, "", {}, {}, points, "frame") for k in range(3)]
    jumps = [replace(r, curve=tuple(p | {"mean": 7.0 * (r.seed > 0)} for p in points)) for r in runs]
    found = aggregates.curve([jumps], lambda task, score: score, aggregates.mean_curve)
    assert found.bounds.tolist() == [[0.0] * 20, [7.0] * 20]
    five = [replace(jumps[min(k, 2)], seed=k) for k in range(5)]
    low, high = aggregates.interval(np.array([[r.curve[0]["mean"]] for r in five]), aggregates.task_mean)[1]
    assert 0 < low < high <= 7, "from five on a bootstrap"


def test_seeds_of_different_settings_that_stand_together_have_a_footnote(root, invent, tmp_path, capsys):
    rows = [invent(tmp_path, DMCONTROL, t, "mlr", s) for t in ("hopper_hop", "walker_walk") for s in (1, 2, 3)]
    rows += [invent(tmp_path, DMCONTROL, "hopper_hop", "baseline", s, changed="" if s == 1 else "env_steps=100000") for s in (1, 2)]
    for row, name in zip(rows, ("a", "a", "b", "c", "c", "c", "d", "e"), strict=True):
        row["config_hash"] = name
    rows += [invent(tmp_path, DMCONTROL, "hopper_hop", "mlr", s, name="own") for s in (1, 2)]  # another cell
    ledger.write(tmp_path, DMCONTROL, rows)
    page = tmp_path / "README.md"
    page.write_text("<!-- results: x -->\n<!-- end of results -->\n")
    assert reporter.main(["--results", str(tmp_path), "--figs", str(tmp_path / "figs"), "--text", "--readme", str(page)]) == 0
    assert not (tmp_path / "figs").exists()
    for text in ((tmp_path / "REPORT.md").read_text(), page.read_text()):
        marked = [line for line in text.splitlines() if "<sup>" in line and line.startswith("| ")]
        assert marked and all(line.startswith("| hopper_hop |") for line in marked)
        notes = [line for line in text.splitlines() if line.startswith("<sup>")]
        assert notes == [
            "<sup>1</sup> hopper_hop, MLR: seeds 1, 2 and seed 3 ran with different versions of the preset `paper` (config hashes a, b).",
            "<sup>2</sup> hopper_hop, Baseline: seed 1 and seed 2 ran with different settings (config hashes d, e).",
        ]


def test_the_report_is_what_the_ledger_gives(root, tmp_path):
    """REPORT.md, without drawing its figures."""
    results, figs = tmp_path / "results", tmp_path / "figs"
    shutil.copytree(root / "results", results)
    (results / "REPORT.md").unlink()
    figs.mkdir()
    (figs / "policies").symlink_to(root / "figs/policies")
    assert reporter.main(["--results", str(results), "--figs", str(figs), "--text"]) == 0
    text = (results / "REPORT.md").read_text()
    assert text == (root / "results/REPORT.md").read_text(), "run scripts/report.sh"
    assert "other scales. Measured by" in text, "a sentence glued to the next one"
    named = re.findall(r"\(\.\./(figs/[\w/]+\.(?:png|gif))\)", text)
    assert any("policies/" in name for name in named) and all((root / name).exists() for name in named)


def test_published_scores_are_marked_where_a_method_has_a_run(published):
    def curve(end: int) -> aggregates.Curve:
        return aggregates.Curve(np.array([0, end]), np.array([0, 1]), np.array([0, 1]), None, 1, 1)

    panels = {"walker_walk": {"mlr": curve(100_000), "madi": curve(100_000)}, "cheetah_run": {"mlr": curve(20_000)}, "hopper_hop": {}}
    cut = {"hopper_hop": [("mlr", curve(20_000))], "reacher_easy": [("mlr", curve(20_000))]}
    assert figures.published_points(DMCONTROL, published[DMCONTROL], panels, cut) == {"walker_walk": [("mlr", 100_000, 643.0)]}
    for shown in ({"madi": curve(100_000)}, {"mlr": curve(90_000)}):
        assert not figures.published_points(DMCONTROL, published[DMCONTROL], {"walker_walk": shown}, {})


def test_an_evaluation_one_agent_step_late_still_counts(root, invent, tmp_path):
    ledger.write(tmp_path, DMCONTROL, [invent(tmp_path, DMCONTROL, "hopper_hop", "mlr", 1, end=100_005, score=123.0)])
    (run,) = data.load_runs(tmp_path, DMCONTROL)
    assert run.at(100_000) == 123.0 and run.at(99_000) is None and run.at(101_000) is None


def test_a_longer_training_of_atari_is_another_experiment(invent, tmp_path):
    """Its importance weights at 400,000 frames are others; in DMControl nothing depends on how long a run will be."""
    ledger.write(tmp_path, ATARI, [invent(tmp_path, ATARI, "pong", "mlr", 1, changed="steps=200000", end=800_000)])
    ledger.write(tmp_path, DMCONTROL, [invent(tmp_path, DMCONTROL, "walker_walk", "mlr", 1, changed="env_steps=500000", end=500_000)])
    assert not data.main_runs(data.load_runs(tmp_path, ATARI), "paper")
    assert len(data.main_runs(data.load_runs(tmp_path, DMCONTROL), "paper")) == 1


def test_mlr_is_compared_with_every_other_method(published, invent, tmp_path):
    ours, theirs = [500.0, 700.0, 600.0, 650.0, 550.0], [400.0, 450.0, 350.0, 300.0, 500.0]
    scores = {
        ("hopper_hop", "mlr"): ours,
        ("hopper_hop", "baseline"): theirs,
        ("hopper_hop", "curl"): ours[:4],
        ("hopper_hop", "drq"): ours,
    }
    rows = [invent(tmp_path, DMCONTROL, *which, i + 1, score=v) for which, own in scores.items() for i, v in enumerate(own)]
    rows += [invent(tmp_path, DMCONTROL, "walker_walk", m, 1, score=v) for m, v in (("mlr", 90.0), ("spr", 80.0))]
    rows += [invent(tmp_path, DMCONTROL, "walker_walk", "baseline", 1, end=50_000, planned=100_000)]  # has not got so far
    ledger.write(tmp_path, DMCONTROL, rows)
    runs = data.load_runs(tmp_path, DMCONTROL)
    baseline, curl, drq, spr = comparisons.compare(DMCONTROL, published[DMCONTROL], runs, 100_000)
    assert (baseline.other, baseline.tasks, baseline.seeds) == ("baseline", ("hopper_hop",), (5, 5))
    share = np.mean((1 - np.exp(-4 * np.linspace(0.1, 1, 10))) / (1 - np.exp(-4)))  # of the last score, over ten evaluations
    (last, (low, high)), (whole, bounds) = baseline.last, baseline.whole
    assert last == pytest.approx(200, rel=1e-3) and 50 < low < 200 < high < 350 and baseline.verdict == "MLR ahead"
    assert whole == pytest.approx(200 * share, rel=1e-3) and bounds[0] < whole < bounds[1]
    assert baseline.probability[0] == 24.5 / 25  # one pair of 25 is level
    assert drq.last[0] == 0 and drq.last[1][0] < 0 < drq.last[1][1] and drq.verdict == "not beyond chance"
    assert curl.seeds == (5, 4) and curl.last[1] is None and curl.verdict == "fewer than 5 seeds"
    assert (spr.tasks, spr.seeds, spr.last[0]) == (("walker_walk",), (1, 1), pytest.approx(10, rel=1e-3))


def test_games_are_compared_together_by_normalised_scores(published, invent, tmp_path):
    games = {"boxing": (0.1, 12.0), "freeway": (0.0, 29.6)}
    gains = {"boxing": 0.5, "freeway": -0.1}
    rows = []
    for game, (random, span) in games.items():
        rows += [
            invent(tmp_path, ATARI, game, m, s, score=random + span * v) for s in (1, 2) for m, v in (("mlr", gains[game]), ("spr", 0.0))
        ]
    rows += [invent(tmp_path, ATARI, "freeway", "spr", 3, score=20.0)]  # boxing has two seeds
    ledger.write(tmp_path, ATARI, rows)
    found = comparisons.compare(ATARI, published[ATARI], data.load_runs(tmp_path, ATARI), 400_000)
    assert [(c.tasks, c.seeds) for c in found] == [(("boxing",), (2, 2)), (("freeway",), (2, 3)), (("boxing", "freeway"), (2, 2))]
    assert [c.last[0] for c in found] == pytest.approx([6.0, -2.96 - 20 / 3, 0.2], abs=0.01)


def test_what_madi_is_compared_with_where_mlr_has_no_run(published, invent, tmp_path):
    ledger.write(tmp_path, DMCONTROL, [invent(tmp_path, DMCONTROL, "walker_walk", m, 1) for m in ("madi", "sac", "svea")])
    found = comparisons.compare(DMCONTROL, published[DMCONTROL], data.load_runs(tmp_path, DMCONTROL), 100_000)
    assert [(c.method, c.other) for c in found] == [("madi", "sac"), ("madi", "svea")]


def test_ablations_compare_at_a_step_that_all_have(published, invent, tmp_path):
    rows = [invent(tmp_path, DMCONTROL, "cheetah_run", "mlr", s, score=400.0) for s in (1, 2)]
    rows += [
        invent(
            tmp_path, DMCONTROL, "cheetah_run", "mlr", 1, name="spatial", changed="mlr.mask.strategy=spatial env_steps=50000", end=50_000
        )
    ]
    rows += [invent(tmp_path, DMCONTROL, "cheetah_run", "mlr", 3, end=20_000, planned=100_000)]  # cut off beside two that are whole
    rows += [invent(tmp_path, DMCONTROL, "walker_walk", "mlr", 1, name="spatial", changed="mlr.mask.strategy=spatial")]  # nothing beside it
    rows += [invent(tmp_path, DMCONTROL, t, "baseline", s, score=200.0) for t, s in (("cheetah_run", 1), ("walker_walk", 2))]
    ledger.write(tmp_path, DMCONTROL, rows)
    (found,) = comparisons.ablations(DMCONTROL, published[DMCONTROL], data.load_runs(tmp_path, DMCONTROL))
    assert (found.key, found.step, found.tasks) == ("mlr.mask.strategy", 50_000, ("cheetah_run",))
    assert {v: len(s) for v, s in found.values.items()} == {"cube": 2, "spatial": 1}
    half = 400 * (1 - np.exp(-2)) / (1 - np.exp(-4))
    assert found.values["cube"] == pytest.approx([half, half], rel=1e-4)
    assert found.baseline == pytest.approx([half / 2], rel=1e-4), "of the task that is compared"


def test_every_method_has_a_look_of_its_own(root, published):
    for tree in TREES:
        own = {f.stem for f in (root / "configs" / tree.name / "method").glob("*.yaml")}
        looks = [figures.style(m)[:2] for m in {*published[tree].methods, *own} - {"human", "random"}]
        assert len(set(looks)) == len(looks) and figures.OTHER[:2] not in looks
        curves = [figures.style(m) for m in own]  # these meet in one panel: a colour each, and no line like that of a run cut off
        assert len({c for c, _, _ in curves}) == len(own) and not any(line == ":" for _, _, line in curves)


TABLE = ("mlr", "baseline", "curl", "drq", "playvirtual", "sac_ae", "spr")  # the methods of the paper's table that are built here


def test_every_method_of_the_papers_table_stands_beside_its_published_scores(root, invent, tmp_path):
    rows = [
        invent(tmp_path, DMCONTROL, "cartpole_swingup", m, s, preset="small", score=300.0 + 50 * n + s)
        for n, m in enumerate(TABLE)
        for s in (1, 2, 3, 4, 5)
    ]
    rows += [invent(tmp_path, DMCONTROL, "cartpole_swingup", "drq", s, preset="madi_small", score=200.0) for s in (1, 2)]
    ledger.write(tmp_path, DMCONTROL, rows)
    call = report(root, tmp_path, tmp_path / "figs")
    assert call.wait(timeout=200) == 0, call.stderr.read()
    small, other = re.split(r"### Preset `madi_small`", (tmp_path / "REPORT.md").read_text().split("### Preset `small`")[1])
    heads = [
        [c.strip() for c in next(line for line in text.splitlines() if line.startswith("| task |")).split("|")] for text in (small, other)
    ]
    names = [data.method_name(m) for m in TABLE]
    assert heads[0][2:23] == [word for n in names for word in (f"**{n}, ours**", f"{n}, published", "difference")]
    assert "**DrQ, ours**" in heads[1] and heads[1][heads[1].index("**DrQ, ours**") + 1] != "DrQ, published", "MaDi's DrQ is another one"
    row = next(line for line in small.splitlines() if line.startswith("| cartpole_swingup |"))
    assert "| 553 ± 2 (5 seeds) | 311 ± 11 | +242 |" in row and "| 603 ± 2 (5 seeds) | 799 ± 42 | -196 |" in row
    published = [line for line in small.splitlines() if line.endswith("| 799.0 | 799.0 |")]
    assert published == ["| SPR, published | the same, from published means | 799.0 | 799.0 |"]
    for part in ("curves_steps", "aggregates_100000"):
        assert (tmp_path / f"figs/dmcontrol_small_{part}.png").stat().st_size > 10_000
    labels = re.findall(r"<!-- (.+?) -->", (tmp_path / "figs/dmcontrol_small_curves_steps.svg").read_text())
    assert set(names) <= set(labels)


def test_no_legend_is_wider_than_its_figure():
    from matplotlib import pyplot

    for width in (3.8, 7.3, 14.3):
        figure, _ = pyplot.subplots(figsize=(width, 3), layout="constrained")
        figures.legend(figure, list(figures.STYLES), published=["mlr", "baseline"])
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
        pyplot.close(figure)


@pytest.mark.parametrize(("option", "says"), [("--results", "is not a folder"), ("--readme", "is not a file")])
def test_a_folder_or_a_page_that_is_not_there_is_an_error(tmp_path, option, says):
    arguments = {"--results": str(tmp_path), "--figs": str(tmp_path / "figs")} | {option: str(tmp_path / "nothing")}
    with pytest.raises(UserError, match=f"{option} {tmp_path}/nothing {says}"):
        reporter.main([word for pair in arguments.items() for word in pair])
    assert not list(tmp_path.iterdir())


def test_worlds_stand_from_weak_to_strong(root, invent, tmp_path):
    rows = [invent(tmp_path, DMCONTROL, "walker_walk", m, 1, score=400.0) for m in ("madi", "svea")]
    rows[0]["worlds"] = "distracting_cs_0.1:10=50 distracting_cs_0.025:10=90 video_easy[procedural]:10=200 color_hard:10=300"
    rows[0]["worlds"] += " clean[suite]:10=400"
    rows[1]["worlds"] = "color_hard:20=350.4"
    ledger.write(tmp_path, DMCONTROL, rows)
    page = Page(tmp_path, tmp_path)
    published = data.load_published(root / "results/published", DMCONTROL)
    worlds_table(page, DMCONTROL, published, data.load_runs(tmp_path, DMCONTROL), "paper")
    cells = [[c.strip() for c in line.split("|")[3:-1]] for line in page.lines if line.startswith("| ")]
    assert cells == [
        ["world", "MaDi", "SVEA", "SVEA, published"],
        ["clean[suite]", "400 (1 seed)", "", ""],
        ["color_hard", "300 (1 seed)", "350 (1 seed)", "749 ± 61"],
        ["video_easy[procedural]", "200 (1 seed)", "", "819 ± 71"],
        ["distracting_cs_0.025", "90 (1 seed)", "", ""],
        ["distracting_cs_0.1", "50 (1 seed)", "", ""],
    ]
    assert any("10 or 20 episodes a world" in line for line in page.lines)
