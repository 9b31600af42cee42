"""The games of Atari-100k, their human and random scores, and the names that users may type."""

import re
from pathlib import Path

import ale_py
from ale_py import roms

from .core.errors import UserError, nearest

# game: (human, random). Source: Wang et al. (2016), as repeated by the papers on Atari-100k and in
# results/published/atari100k.csv, with which a test compares this table.
SCORES: dict[str, tuple[float, float]] = {
    "alien": (7127.7, 227.8),
    "amidar": (1719.5, 5.8),
    "assault": (742.0, 222.4),
    "asterix": (8503.3, 210.0),
    "bank_heist": (753.1, 14.2),
    "battle_zone": (37187.5, 2360.0),
    "boxing": (12.1, 0.1),
    "breakout": (30.5, 1.7),
    "chopper_command": (7387.8, 811.0),
    "crazy_climber": (35829.4, 10780.5),
    "demon_attack": (1971.0, 152.1),
    "freeway": (29.6, 0.0),
    "frostbite": (4334.7, 65.2),
    "gopher": (2412.5, 257.6),
    "hero": (30826.4, 1027.0),
    "jamesbond": (302.8, 29.0),
    "kangaroo": (3035.0, 52.0),
    "krull": (2665.5, 1598.0),
    "kung_fu_master": (22736.3, 258.5),
    "ms_pacman": (6951.6, 307.3),
    "pong": (14.6, -20.7),
    "private_eye": (69571.3, 24.9),
    "qbert": (13455.0, 163.9),
    "road_runner": (7845.0, 11.5),
    "seaquest": (42054.7, 68.4),
    "up_n_down": (11693.2, 533.4),
}


def parse(name: str) -> str:
    """ALE's name of a game, from any spelling such as kung_fu_master or KungFuMaster."""
    known = {_letters(rom): rom for rom in [*SCORES, *roms.get_all_rom_ids()]}
    if _letters(name) not in known:
        close = nearest(_snake(name), known.values())
        raise UserError(f"game={name} is not an Atari game of ALE: {close}")
    return known[_letters(name)]


def rom(game: str) -> Path:
    """The ROM file, which is part of the package ale-py."""
    path = roms.get_rom_path(game)
    if path is None or not Path(path).exists():
        version = ale_py.__version__
        raise UserError(f"the ROM of {game} is missing: it is part of the package ale-py ({version}): install ale-py again")
    return Path(path)


def human_normalized(game: str, score: float) -> float | None:
    """(score - random) / (human - random); None for a game without published human and random scores."""
    if game not in SCORES:
        return None
    human, random = SCORES[game]
    return (score - random) / (human - random)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower().strip("_")
