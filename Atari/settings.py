"""Read the settings of a run from YAML and the command line, check them, and derive the path of its folder."""

import re
from pathlib import Path

from . import distraction, games
from .core.errors import UserError
from .core.method import geometry
from .core.run import conditions, paths
from .core.run import config as configuration
from .core.run.config import Config

GYM = "gym:"  # before the id of an environment of Gymnasium
GYM_ID = GYM + r"([A-Za-z0-9_.-]+/)?[A-Za-z0-9_.-]+"
OF_ALE = ("env.noops", "env.fewest_noops", "env.episodic_life")  # keys without effect on other environments
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "atari"
RANGES = {
    "seed": (0, 2**31 - 1), "threads": (0, 1024), "env_restarts": (0, 10**6), "env_timeout": (0, 10**6), "steps": (1, 10**9),
    "env.noops": (0, 1000),
    "env.fewest_noops": (0, 1000), "env.frame_skip": (1, 60), "env.max_steps": (1, None), "env.size": (8, 256), "env.stack": (1, 16),
    "replay.capacity": (10, None), "replay.alpha": (0, 1), "replay.beta": (0, 1), "replay.weight_eps": (0, 1),
    "augment.next_views": (1, 2), "train.epsilon": (0, 1), "train.epsilon_decay": (0, 10**9), "rainbow.target_every": (0, 10**9),
    "augment.pad": (0, 64), "augment.intensity": (0, 1), "encoder.filters": (1, 4096), "encoder.kernels": (1, 64),
    "encoder.strides": (1, 64), "rainbow.batch_size": (1, None), "train.random_steps": (1, None), "train.update_every": (1, None),
    "train.updates_per_step": (0, 64), "train.catch_up": (0, 10**5), "rainbow.lr": (0, 1), "rainbow.adam_eps": (1e-12, 1),
    "rainbow.clip": (0, None), "rainbow.discount": (0, 1), "rainbow.n_step": (1, 100), "rainbow.atoms": (2, 1001),
    "rainbow.hidden": (1, None), "rainbow.noisy_std": (0, 10), "eval.every": (1, None), "eval.episodes": (1, 1000),
    "eval.final_episodes": (1, 1000), "eval.epsilon": (0, 1), "checkpoint.every": (1, None), "mlr.weight": (0, None),
    "mlr.chunk": (0, None), "mlr.lr": (0, 1), "mlr.window": (1, 256), "mlr.tau": (0, 1), "mlr.mask.patch": (1, None),
    "mlr.mask.block": (1, None), "mlr.decoder.depth": (0, 64), "mlr.decoder.width": (0, None),
    "mlr.decoder.heads": (1, None), "mlr.decoder.mlp_ratio": (0.1, 64), "baseline.window": (1, 256), "curl.weight": (0, None),
    "curl.hidden": (1, None), "curl.size": (1, None), "curl.tau": (0, 1), "curl.cut": (0, 255), "curl.pad": (0, 64),
    "strong_augmentation.alpha": (0, 1), "strong_augmentation.images": (1, 10**5), "svea.alpha": (0, 100), "svea.beta": (0, 100),
    "masker.depth": (1, 32), "masker.width": (1, 1024), "masker.threshold": (0, 1), "masker.lr": (0, 1), "env.distraction_strength": (0, 1),
    "spr.steps": (1, 255), "spr.weight": (0, None), "spr.tau": (0, 1), "playvirtual.copies_per_action": (1, 1000),
    "playvirtual.weight": (0, None), "playvirtual.ramp": (0, None),
}  # fmt: skip
CHOICES = {
    "precision": ("auto", "fp32", "bf16"), "tracker": ("tensorboard", "wandb", "none"),
    "encoder.padding": ("valid", "same"), "encoder.init": ("torch", "kaiming", "xavier"), "replay.priority": ("kl", "loss"),
    "replay.enter_at": ("one", "largest"), "rainbow.head": ("streams", "dueling", "plain"),
    "rainbow.value": ("distribution", "scalar"), "env.resize": ("linear", "area"), "rainbow.target_noise": ("last", "own", "shared"),
    "mlr.target": ("latent", "pixels"), "mlr.mask.fill": ("black", "mean"),
    "masker.type": ("soft", "hard", "mixed"), "strong_augmentation.kind": ("overlay", "none"),
    "env.distraction": distraction.DISTRACTIONS, "env.distraction_behind": distraction.BEHIND,
}  # fmt: skip
CONDITIONAL = [  # keys that have an effect only if another key has one of these values
    ("rainbow.atoms", "rainbow.value", ("distribution",)), ("rainbow.v_min", "rainbow.value", ("distribution",)),
    ("rainbow.v_max", "rainbow.value", ("distribution",)), ("replay.priority", "rainbow.value", ("distribution",)),
    ("rainbow.noisy_std", "rainbow.noisy", (True,)), ("rainbow.target_noise", "rainbow.noisy", (True,)),
    ("rainbow.scale_head_gradient", "rainbow.head", ("streams",)), ("quirks.done_n_late", "quirks.done_n_first_step", (False,)),
    *((f"masker.{key}", "masker.enabled", (True,)) for key in ("depth", "width", "type", "threshold", "lr")),
    ("mlr.tau", "mlr.momentum", (True,)), ("masker.threshold", "masker.type", ("hard", "mixed")),
    ("strong_augmentation.alpha", "strong_augmentation.kind", ("overlay",)),
    ("strong_augmentation.images", "strong_augmentation.kind", ("overlay",)),
    ("svea.alpha", "strong_augmentation.kind", ("overlay",)), ("svea.beta", "strong_augmentation.kind", ("overlay",)),
    *((f"replay.{key}", "replay.alpha", None) for key in ("beta", "weight_eps", "priority", "enter_at")),
    ("quirks.objective_in_priorities", "replay.alpha", None), ("quirks.unclipped_heads", "rainbow.clip", None),
    ("env.fewest_noops", "env.noops", None),
    ("mlr.tau", "mlr.target", ("latent",)), ("mlr.momentum", "mlr.target", ("latent",)),
    ("mlr.mask.patch", "mlr.mask.strategy", ("cube", "spatial")), ("mlr.mask.block", "mlr.mask.strategy", ("cube", "temporal")),
    ("mlr.decoder.heads", "mlr.decoder.depth", None), ("mlr.decoder.mlp_ratio", "mlr.decoder.depth", None),
]  # fmt: skip
DOPAMINE_2021 = {  # what Dopamine did otherwise in the summer of 2021
    "der": {"rainbow.target_every": 8000, "train.epsilon": [1.0, 0.01], "train.epsilon_decay": 2000},
    "drq": {"quirks.one_shift_per_batch": True},
    "drq_eps": {"quirks.one_shift_per_batch": True},
}
STAGES = {
    "augment.pad": "shift", "quirks.short_shift": "shift", "quirks.one_shift_per_batch": "shift", "augment.intensity": "intensity",
}  # fmt: skip
WEIGHTS = {
    "curl": (("curl.weight",), ("quirks.objective_in_priorities", "quirks.targets_lag")),
    "spr": (("spr.weight", "playvirtual.weight"), ("quirks.targets_lag", "quirks.actions_run_on", "quirks.mask_includes_end")),
    "playvirtual": (("playvirtual.weight",), ()),
}
PROJECTING = ("mlr", "spr")  # blocks of methods that project through the hidden layers of both streams
MOVED = {f"rainbow.{key}": f"train.{key}" for key in ("random_steps", "update_every", "updates_per_step")}


def read_config(arguments: list[str]) -> Config:
    """game=KungFuMaster and game=kung_fu_master are the same. A game without its own file uses other.yaml, or gym.yaml."""
    of_ale = [a for a in arguments if a.startswith("game=") and not a.startswith(f"game={GYM}")]
    named = [f"game={games.parse(a.partition('=')[2])}" if a in of_ale else a for a in arguments]
    chosen = [a.partition("=")[2] for a in named if a.startswith("game=")]
    stand_ins = {("game", name): file for name in [*games.SCORES, *chosen] if (file := file_of(name)) != name}
    config = configuration.load(CONFIGS, named, ("game", "method", "preset"), stand_ins, MOVED)
    typed = {a.partition("=")[0].lstrip("+") for a in named}
    _follow_game(config, typed)
    configuration.check_ranges(config, RANGES)
    configuration.check_choices(config, CHOICES)
    conditions.check_conditions(config, CONDITIONAL, typed)
    conditions.check_weights(config, WEIGHTS, typed - {"spr.steps"})  # spr.steps has an effect even then: it sets the replay's windows
    conditions.check_stages(config, STAGES, typed)
    distraction.check(config, typed)
    if config.get("dopamine_2021"):
        if config["preset"] in ("small", "debug"):
            raise UserError(f"dopamine_2021=true sets numbers of published runs, which do not suit preset={config['preset']}: use paper")
        for key, value in DOPAMINE_2021[config["method"]].items():
            block, _, name = key.partition(".")
            config[block][name] = config[block][name] if key in typed else value
    random_steps = config["train"]["random_steps"]
    if config["steps"] <= random_steps:
        raise UserError(f"steps={config['steps']} must exceed train.random_steps={random_steps}: nothing is learnt before")
    for block, key, when in (("replay", "beta", "at the first update and at the last step"), ("train", "epsilon", "before and after")):
        if len(config[block][key]) != 2:
            raise UserError(f"{block}.{key}={config[block][key]} must be two numbers: {when}")
    if config["train"]["epsilon"][0] < config["train"]["epsilon"][1]:
        raise UserError(f"train.epsilon={config['train']['epsilon']} must not rise: the first number is for the random steps")
    if config["env"]["fewest_noops"] > config["env"]["noops"] > 0:
        raise UserError(f"env.fewest_noops={config['env']['fewest_noops']} must be at most env.noops={config['env']['noops']}")
    if config["rainbow"]["head"] != "streams" and any(block in config for block in PROJECTING):
        raise UserError(f"method={config['method']} projects through both streams of the head: leave rainbow.head=streams")
    conditions.check_device(config["device"])
    conditions.check_tracker(config["tracker"])
    conditions.check_transfer(config, typed)
    _check_sizes(config)
    conditions.check_source(config, run_path(config))
    return config


def _check_sizes(config: Config) -> None:
    """Frames, augmentations, convolutions and masks fit together."""
    encoder, size = config["encoder"], config["env"]["size"]
    layers = geometry.convolved(size, encoder["filters"], encoder["kernels"], encoder["strides"], encoder["padding"] == "same")
    if encoder["centre"] and encoder["padding"] == "same":
        raise UserError(
            "encoder.centre=true and encoder.padding=same exclude each other: zeros around an image are no longer its mean grey"
        )
    geometry.check_order(config["augment"]["order"], size, size, resample=False)
    if "curl" in config and (config["curl"]["cut"] >= size or config["curl"]["cut"] > 2 * config["curl"]["pad"]):
        cut, pad = config["curl"]["cut"], config["curl"]["pad"]
        raise UserError(f"curl.cut={cut} must be less than env.size={size} and at most twice curl.pad={pad}")
    if config["rainbow"]["value"] == "distribution" and config["rainbow"]["v_min"] >= config["rainbow"]["v_max"]:
        raise UserError(f"rainbow.v_min={config['rainbow']['v_min']} must be less than rainbow.v_max={config['rainbow']['v_max']}")
    if "mlr" in config:
        mlr, mask = config["mlr"], config["mlr"]["mask"]
        shape = (mlr["window"], size, mask["patch"], mask["block"], mask["ratio"], mask["strategy"])
        geometry.Cells(*shape, count_kept=config["quirks"]["count_kept"])
        geometry.check_heads(mlr["decoder"]["width"] or encoder["filters"][-1] * layers[-1][1] ** 2, mlr["decoder"]["heads"])


def file_of(game: str) -> str:
    """The YAML file with a game's settings: its own, or other; gym of an environment of Gymnasium."""
    if game.startswith(GYM):
        return "gym"
    name = games.parse(game)
    return name if name in configuration.choices(CONFIGS, "game") else "other"


def _follow_game(config: Config, typed: set[str]) -> None:
    """The block gym is for environments of Gymnasium, no-ops and lives for games of ALE."""
    game = config["game"]
    gym = game.startswith(GYM)
    for key in sorted(typed):
        if key in OF_ALE if gym else key.startswith("gym."):
            raise UserError(f"key {key} has no effect with game={game}: it is for {'games of ALE' if gym else f'game={GYM}ID'}")
    if not gym:
        del config["gym"]
    elif not re.fullmatch(GYM_ID, game):
        raise UserError(f"game={game} must look like {GYM}ALE/Pong-v5; gym.import=PACKAGE imports what registers it")


def run_path(config: Config) -> Path:
    return paths.run_path(config.runs, "atari", config.game, config.method, config.preset, config.seed, config.name)
