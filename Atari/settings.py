"""Read the settings of a run from YAML and the command line, check them, and derive the path of its folder."""

from pathlib import Path

from . import games
from .core.errors import UserError, nearest
from .core.run import config as configuration
from .core.run import paths
from .core.run.config import Config

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "atari"
RANGES = {
    "seed": (0, 2**31 - 1), "threads": (0, 1024), "env_restarts": (0, 10**6), "steps": (1, 10**9),
    "env.noops": (0, 1000), "env.frame_skip": (1, 60),
    "env.max_steps": (1, None), "env.size": (8, 256), "env.stack": (1, 16), "replay.capacity": (10, None), "replay.alpha": (0, 1),
    "replay.beta": (0, 1), "augment.pad": (0, 64), "augment.intensity": (0, 1), "encoder.filters": (1, 4096),
    "encoder.kernels": (1, 64), "encoder.strides": (1, 64), "rainbow.batch_size": (1, None), "train.random_steps": (1, None),
    "train.update_every": (1, None), "train.updates_per_step": (0, 64), "train.catch_up": (0, 10**5),
    "rainbow.lr": (0, 1), "rainbow.adam_eps": (1e-12, 1),
    "rainbow.clip": (1e-8, None), "rainbow.discount": (0, 1), "rainbow.n_step": (1, 100), "rainbow.atoms": (2, 1001),
    "rainbow.hidden": (1, None), "rainbow.noisy_std": (0, 10), "eval.every": (1, None), "eval.episodes": (1, 1000),
    "eval.final_episodes": (1, 1000), "eval.epsilon": (0, 1), "checkpoint.every": (1, None), "mlr.weight": (0, None),
    "mlr.chunk": (0, None), "mlr.window": (1, 256), "mlr.tau": (0, 1), "mlr.mask.patch": (1, None), "mlr.mask.block": (1, None),
    "mlr.decoder.depth": (0, 64), "mlr.decoder.width": (0, None), "mlr.decoder.heads": (1, None), "mlr.decoder.mlp_ratio": (0.1, 64),
    "spr.steps": (1, 255), "spr.weight": (0, None), "spr.tau": (0, 1), "playvirtual.copies_per_action": (1, 1000),
    "playvirtual.weight": (0, None), "playvirtual.ramp": (0, None),
}  # fmt: skip

MOVED = {f"rainbow.{key}": f"train.{key}" for key in ("random_steps", "update_every", "updates_per_step")}


def read_config(arguments: list[str]) -> Config:
    """game=KungFuMaster and game=kung_fu_master are the same. A game without its own file uses other.yaml."""
    named = [f"game={games.parse(a.partition('=')[2])}" if a.startswith("game=") else a for a in arguments]
    own = set(configuration.choices(CONFIGS, "game"))
    chosen = [a.partition("=")[2] for a in named if a.startswith("game=")]
    stand_ins = {("game", name): "other" for name in [*games.SCORES, *chosen] if name not in own}
    config = configuration.load(CONFIGS, named, ("game", "method", "preset"), stand_ins, MOVED)
    configuration.check_ranges(config, RANGES)
    if "mlr" in config and config["mlr"]["target"] not in ("latent", "pixels"):
        raise UserError(f"mlr.target={config['mlr']['target']} is unknown: {nearest(config['mlr']['target'], ('latent', 'pixels'))}")
    random_steps = config["train"]["random_steps"]
    if config["steps"] <= random_steps:
        raise UserError(f"steps={config['steps']} must exceed train.random_steps={random_steps}: nothing is learnt before")
    if len(config["replay"]["beta"]) != 2:
        raise UserError(f"replay.beta={config['replay']['beta']} must be two numbers: at the first update and at the last step")
    return config


def run_path(config: Config) -> Path:
    return paths.run_path(config.runs, "atari", config.game, config.method, config.preset, config.seed, config.name)
