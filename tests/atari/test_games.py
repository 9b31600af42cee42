"""Names of games, their scores, their ROMs."""

import csv

import pytest
from ale_py import roms

from Atari import games
from Atari.core.errors import UserError


@pytest.mark.parametrize(
    "typed, name",
    [
        ("Pong", "pong"),
        ("pong", "pong"),
        ("kung_fu_master", "kung_fu_master"),
        ("KungFuMaster", "kung_fu_master"),
        ("kung-fu-master", "kung_fu_master"),
        ("JamesBond", "jamesbond"),
        ("UpNDown", "up_n_down"),
        ("space_invaders", "space_invaders"),  # not one of the 26
        ("SpaceInvaders", "space_invaders"),
    ],
)
def test_names(typed, name):
    assert games.parse(typed) == name


def test_camel_case_of_all_games():
    for rom in roms.get_all_rom_ids():
        camel = "".join(part.capitalize() for part in rom.split("_"))
        assert games.parse(camel) == games.parse(rom) == rom


@pytest.mark.parametrize("typed, near", [("pongg", "pong"), ("KungFuMastr", "kung_fu_master"), ("brakout", "breakout")])
def test_unknown_game_names_the_nearest(typed, near):
    with pytest.raises(UserError, match=near):
        games.parse(typed)


def test_missing_rom_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(roms, "get_rom_path", lambda name: None)
    with pytest.raises(UserError, match="ale-py"):
        games.rom("pong")
    monkeypatch.setattr(roms, "get_rom_path", lambda name: tmp_path / "pong.bin")
    with pytest.raises(UserError, match="ale-py"):
        games.rom("pong")


def test_all_26_roms_are_there():
    assert len(games.SCORES) == 26
    assert all(games.rom(game).exists() and games.parse(game) == game for game in games.SCORES)


def test_scores_are_those_of_the_published_table(root):
    with open(root / "results" / "published" / "atari100k.csv") as file:
        table = {row["game"]: (float(row["human"]), float(row["random"])) for row in csv.DictReader(file)}
    assert games.SCORES == table


def test_human_normalized():
    assert games.human_normalized("pong", 14.6) == pytest.approx(1.0)
    assert games.human_normalized("pong", -20.7) == pytest.approx(0.0)
    assert games.human_normalized("freeway", 14.8) == pytest.approx(0.5)
    assert games.human_normalized("space_invaders", 100.0) is None


def test_known_mean_and_median(root):
    """The published means of MLR give the published human-normalised mean 0.679 and median 0.428."""
    with open(root / "results" / "published" / "atari100k.csv") as file:
        values = sorted(games.human_normalized(row["game"], float(row["mlr"])) for row in csv.DictReader(file))
    assert sum(values) / 26 == pytest.approx(0.679, abs=6e-4)
    assert (values[12] + values[13]) / 2 == pytest.approx(0.428, abs=6e-4)
