"""README's table of results, and the animations in the report."""

import numpy as np
import pytest
from PIL import Image

from DMControl.core.errors import UserError
from scripts.ledger import rows as ledger
from scripts.report import report as reporter
from scripts.report import summary
from scripts.report.data import load_published, load_runs
from scripts.trees import ATARI, DMCONTROL, TREES


@pytest.fixture
def write(tmp_path):
    """write(results) writes README and REPORT.md of this ledger; returns README."""
    page = tmp_path / "README.md"

    def call(results) -> str:
        if not page.exists():
            page.write_text("above\n<!-- results: x -->\nold\n<!-- end of results -->\nbelow\n")
        folders = ["--results", str(results), "--figs", str(tmp_path / "figs")]
        assert reporter.main([*folders, "--text", "--readme", str(page)]) == 0
        return page.read_text()

    return call


def test_readme_has_one_table_of_finished_runs(invented_ledger, invent, write):
    own = ledger.read(invented_ledger, DMCONTROL)
    own.append(invent(invented_ledger, DMCONTROL, "reacher_easy", "mlr", 1, end=50_000))
    own.append(invent(invented_ledger, DMCONTROL, "walker_walk", "madi", 1))
    ledger.write(invented_ledger, DMCONTROL, own)
    text = write(invented_ledger)
    assert write(invented_ledger) == text, "a second time"
    head, *lines = text.removeprefix("above\n<!-- results: x -->\n").removesuffix("<!-- end of results -->\nbelow\n").splitlines()
    assert head == "| task | method | preset | at | ours | published | hours a run |"
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[1:]]
    assert [(c[0], c[1]) for c in cells] == [
        ("cheetah_run", "MLR"), ("cheetah_run", "Baseline"), ("reacher_easy", "MLR"),
        ("walker_walk", "MLR"), ("walker_walk", "Baseline"), ("walker_walk", "MaDi"),
        *((game, method) for game in ("alien", "kung_fu_master", "pong") for method in ("MLR", "Baseline")),
    ], "the run that was cut off, and those with a name, are not among them"  # fmt: skip
    assert cells[0][2:4] == ["paper", "100,000 env steps"] and "(3 seeds)" in cells[0][4] and cells[0][5] == "482 ± 38"
    assert cells[2][3] == "50,000 env steps" and cells[2][5] == "866 ± 103 at 100,000" and cells[5][5] == ""


def test_which_rows_stand_in_readme_depends_on_no_score(invent, tmp_path, monkeypatch):
    """Preset paper before small, whole tasks, at most so many rows."""
    monkeypatch.setattr(summary, "ROWS", 12)
    ledger.write(tmp_path, ATARI, [invent(tmp_path, ATARI, g, m, 1) for g in ("pong", "alien") for m in ("mlr", "baseline")])
    own = [invent(tmp_path, DMCONTROL, "walker_walk", m, 1, preset="small", score=900.0) for m in ("mlr", "baseline", "madi")]
    own += [invent(tmp_path, DMCONTROL, "cheetah_run", m, 1, preset=p) for p in ("paper", "small") for m in ("mlr", "baseline", "drq")]
    own += [invent(tmp_path, DMCONTROL, "walker_walk", "mlr", 1, preset="mine", score=999.0)]
    ledger.write(tmp_path, DMCONTROL, own)
    rows = summary.chosen_runs({tree: load_runs(tmp_path, tree) for tree in TREES})
    chosen = [(runs[0].preset, runs[0].task, runs[0].method) for _, runs in rows]
    assert chosen[:7] == [
        *(("paper", "cheetah_run", m) for m in ("mlr", "baseline", "drq")),
        *(("paper", g, m) for g in ("alien", "pong") for m in ("mlr", "baseline")),
    ]
    assert chosen[7:] == [("small", "cheetah_run", m) for m in ("mlr", "baseline", "drq")], "three more would be thirteen"


def test_an_empty_ledger_has_no_row(write, tmp_path):
    (tmp_path / "results").mkdir()
    assert "no run yet" in write(tmp_path / "results")


def test_the_report_has_the_animations(invented_ledger, tmp_path, write):
    (tmp_path / "figs/policies").mkdir(parents=True)
    pictures = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (0, 200)]
    file = tmp_path / "figs/policies/cheetah_run_mlr_paper.gif"
    pictures[0].save(file, save_all=True, append_images=pictures[1:], comment=b"what it shows")
    assert "what it shows" not in write(invented_ledger)
    text = (invented_ledger / "REPORT.md").read_text()
    assert "(../figs/policies/cheetah_run_mlr_paper.gif)" in text and "| what it shows |" in text


def test_readme_without_a_place_for_the_table_is_an_error(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("nothing\n")
    with pytest.raises(UserError, match="has no comments <!-- results"):
        reporter.main(["--results", str(tmp_path), "--figs", str(tmp_path / "figs"), "--text", "--readme", str(page)])
    assert page.read_text() == "nothing\n"


def test_readme_is_what_the_ledger_gives(root, tmp_path):
    page = tmp_path / "README.md"
    page.write_text((root / "README.md").read_text().replace("seeds) |", "seeds |"))
    runs = {tree: load_runs(root / "results", tree) for tree in TREES}
    summary.write_summary(page, runs, {tree: load_published(ledger.PUBLISHED, tree) for tree in TREES})
    assert page.read_text() == (root / "README.md").read_text(), "run scripts/report.sh --readme README.md"
