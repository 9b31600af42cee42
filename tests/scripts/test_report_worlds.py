"""What the report says of runs that were judged in other worlds."""

from types import SimpleNamespace

from scripts.report.tables import FORMER_CAMERA, former_camera


def test_the_table_of_worlds_says_what_is_from_before_the_published_camera():
    def said(*commits):
        worlds = {"distracting_cs_0.1[procedural]": 50.0, "clean[suite]": 60.0}
        runs = [SimpleNamespace(task="walker_walk", method="madi", seed=n, commit=c, worlds=worlds) for n, c in enumerate(commits, 1)]
        elsewhere = SimpleNamespace(task="walker_walk", method="madi", seed=9, commit=FORMER_CAMERA[0], worlds={"clean[suite]": 60.0})
        return former_camera([*runs, elsewhere])

    assert "In distracting_cs all runs were judged before" in said(FORMER_CAMERA[0], f"0123456789ab {FORMER_CAMERA[1]}")
    assert "In distracting_cs walker_walk MaDi seed 2 were judged before" in said("0123456789ab", FORMER_CAMERA[1])
    assert said("0123456789ab", "0123456789ab") == ""
