"""Read the settings of a run from YAML and the command line, check them, and derive the path of its folder."""

import re
from pathlib import Path
from typing import Any

from .core.errors import UserError
from .core.method import geometry
from .core.run import conditions, paths
from .core.run import config as configuration
from .core.run.config import Config
from .tasks import ARM, TASKS
from .ur5e_model import find
from .worlds.catalogue import WorldName, check_data, world_names

GYM = "gym:"  # before the id of an environment of Gymnasium
GYM_ID = GYM + r"([A-Za-z0-9_.-]+/)?[A-Za-z0-9_.-]+"
OF_SUITE = ("image.shadows", "world", "intensity", "eval.worlds", "eval.intensities")  # keys without effect on other environments
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dmcontrol"
RANGES = {
    "seed": (0, 2**31 - 1), "threads": (0, 1024), "chunk": (0, None), "env_steps": (1, 10**9), "action_repeat": (1, 1000),
    "env_restarts": (0, 10**6), "env_timeout": (0, 10**6), "gym.max_steps": (1, 10**9),
    "image.size": (16, 512), "image.crop": (16, 512), "image.stack": (1, 16), "replay.capacity": (100, None),
    "augment.pad": (0, 64), "augment.intensity": (0, 1), "encoder.filters": (1, 4096), "encoder.strides": (1, 4),
    "encoder.centre": (0, 255),
    "encoder.dim": (1, None), "sac.batch_size": (1, None), "sac.hidden": (1, None), "sac.lr": (0, 1), "sac.alpha_lr": (0, 1),
    "sac.alpha_betas": (0, 0.999999),
    "sac.discount": (0, 1), "sac.init_temperature": (1e-8, None), "sac.critic_tau": (0, 1), "sac.encoder_tau": (0, 1),
    "sac.actor_every": (1, None), "sac.target_every": (1, None), "train.random_steps": (1, None), "train.updates_per_step": (0, 10**5),
    "train.update_every": (1, None), "train.catch_up": (0, 10**7),
    "eval.every": (1, None), "eval.episodes": (1, None), "checkpoint.every": (1, None), "mlr.batch_size": (1, None),
    "mlr.window": (1, 256), "mlr.lr": (0, 1), "mlr.warmup": (0, None), "mlr.clip": (1e-8, None), "mlr.tau": (0, 1),
    "mlr.hidden": (1, None), "mlr.mask.patch": (1, None), "mlr.mask.block": (1, None), "mlr.decoder.depth": (0, 64),
    "mlr.decoder.width": (1, None), "mlr.decoder.heads": (1, None), "mlr.decoder.mlp_ratio": (0.1, 64),
    "dmcgb.action_repeat": (1, 1000), "dmcgb.agent_steps": (1, 10**8), "sac.weight_decay": (0, 1),
    "strong_augmentation.alpha": (0, 1), "strong_augmentation.images": (1, 10**5),
    "svea.alpha": (0, 100), "svea.beta": (0, 100), "masker.depth": (1, 32),
    "masker.width": (1, 1024), "masker.threshold": (0, 1), "masker.lr": (0, 1), "soda.batch_size": (2, None), "soda.lr": (0, 1),
    "soda.tau": (0, 1), "soda.every": (1, None), "sgqn.quantile": (0, 0.9999), "sgqn.weight": (0, None), "sgqn.lr": (0, 1),
    "sgqn.every": (1, None), "drq.views": (1, 64), "drq.target_views": (1, 64), "curl.lr": (0, 1), "curl.weight": (0, None),
    "sac_ae.encoder_lr": (0, 1), "sac_ae.decoder_lr": (0, 1), "sac_ae.weight_decay": (0, 1), "sac_ae.weight": (0, None),
    "sac_ae.latent_weight": (0, None),
    "spr.batch_size": (1, None), "spr.steps": (1, 255), "spr.weight": (0, None), "spr.lr": (0, 1),
    "spr.encoder_lr": (0, 1), "spr.clip": (1e-8, None), "spr.tau": (0, 1), "spr.width": (1, None), "spr.hidden": (1, None),
    "playvirtual.copies": (1, None), "playvirtual.weight": (0, None), "playvirtual.ramp": (0, 10**9),
    "dreamer.batch_size": (1, None), "dreamer.length": (2, 1000), "dreamer.filters": (1, 4096), "dreamer.stoch": (1, None),
    "dreamer.deter": (1, None), "dreamer.hidden": (1, None), "dreamer.model_lr": (0, 1), "dreamer.actor_lr": (0, 1),
    "dreamer.value_lr": (0, 1), "dreamer.clip": (1e-8, None), "dreamer.free_nats": (0, None), "dreamer.horizon": (2, 1000),
    "dreamer.model_updates": (0, 10**9),
    "planet.batch_size": (1, None), "planet.length": (2, 1000), "planet.filters": (1, 4096), "planet.stoch": (1, None),
    "planet.deter": (1, None), "planet.hidden": (1, None), "planet.model_lr": (0, 1), "planet.clip": (1e-8, None),
    "planet.free_nats": (0, None), "planet.reward_scale": (0, None), "planet.horizon": (1, 1000), "planet.iterations": (1, 1000),
    "planet.candidates": (1, None), "planet.elites": (1, None), "planet.exploration": (0, 10),
    "slac.batch_size": (1, None), "slac.model_batch": (1, None), "slac.length": (2, 1000), "slac.filters": (1, 4096),
    "slac.z1": (1, None), "slac.z2": (1, None), "slac.hidden": (1, None), "slac.model_lr": (0, 1), "slac.lr": (0, 1),
    "slac.tau": (0, 1), "slac.discount": (0, 1), "slac.init_temperature": (1e-8, None), "slac.centre": (0, 255),
    "slac.pixel_variance": (1e-6, 1e6),
    "dreamer.discount": (0, 1), "dreamer.return_lambda": (0, 1), "dreamer.exploration": (0, 10),
}  # fmt: skip
CHOICES = {
    "precision": ("auto", "fp32", "bf16"), "tracker": ("tensorboard", "wandb", "none"),
    "encoder.init": ("delta_orthogonal", "orthogonal", "kaiming"),
    "mlr.target": ("latent", "pixels"), "mlr.decay": ("inverse_sqrt", "constant"),
    "protocol": ("mlr", "dmcgb"), "strong_augmentation.kind": ("overlay", "conv", "none"), "masker.type": ("soft", "hard", "mixed"),
    "mlr.mask.fill": ("black", "mean"), "spr.variant": ("A", "B", "C"),
    "dreamer.version": ("tf2", "tf1"), "train.unit": ("step", "env_step", "episode"),
}  # fmt: skip
CONDITIONAL = [  # keys that have an effect only if another key has one of these values
    ("dmcgb.action_repeat", "protocol", ("dmcgb",)), ("dmcgb.agent_steps", "protocol", ("dmcgb",)),
    ("intensity", "world", ("distracting_cs",), "for evaluation set eval.intensities"),
    ("masker.threshold", "masker.type", ("hard", "mixed")),
    ("strong_augmentation.alpha", "strong_augmentation.kind", ("overlay",)),
    ("strong_augmentation.images", "strong_augmentation.kind", ("overlay",)),
    ("quirks.two_adams", "spr.variant", ("A",)), ("quirks.double_clip", "spr.variant", ("A",)),
    ("quirks.half_spr_lr", "spr.variant", ("A", "C")), ("spr.clip", "spr.variant", ("A", "C")),
    ("spr.encoder_lr", "spr.variant", ("A", "B")), ("spr.encoder_lr", "quirks.two_adams", (True,)),
    ("mlr.tau", "mlr.momentum", (True,)), ("mlr.tau", "mlr.target", ("latent",)), ("mlr.momentum", "mlr.target", ("latent",)),
    ("mlr.decay", "mlr.warmup", None), ("quirks.mask_ratio_per_block", "mlr.mask.strategy", ("cube",)),
    ("mlr.mask.patch", "mlr.mask.strategy", ("cube", "spatial")), ("mlr.mask.block", "mlr.mask.strategy", ("cube", "temporal")),
    ("mlr.decoder.heads", "mlr.decoder.depth", None), ("mlr.decoder.mlp_ratio", "mlr.decoder.depth", None),
    ("augment.next_obs", "augment.order", None),
]  # fmt: skip
STAGES = {
    "augment.pad": "shift", "augment.intensity": "intensity", "quirks.rl_without_intensity": "intensity",
    "quirks.rl_crop_misses_last": "crop", "quirks.resampled_crop": "crop",
}  # fmt: skip
WEIGHTS = {
    "curl": (("curl.weight",), ("quirks.two_encoder_steps",)),
    "sac_ae": (("sac_ae.weight",), ("quirks.whole_catch_up",)),
    "spr": (("spr.weight", "playvirtual.weight"), ("quirks.half_spr_lr", "quirks.two_adams", "quirks.double_clip")),
    "playvirtual": (("playvirtual.weight",), ()),
}
WINDOWS = {
    "mlr.window": 0,
    "spr.steps": 1,
    "dreamer.length": 0,
    "planet.length": 0,
    "slac.length": 1,
}  # keys that set the length of windows: it is the value plus this number
MOVED = {f"sac.{key}": f"train.{key}" for key in ("random_steps", "updates_per_step", "catch_up")}
MOVED |= {f"strong.{old}": f"strong_augmentation.{new}" for old, new in (("augment", "kind"), ("alpha", "alpha"), ("images", "images"))}
ALIASES = {"augment": "strong_augmentation.kind"}  # arguments of the published code


def read_config(arguments: list[str]) -> Config:
    pairs = [(ALIASES.get(key, key), equals + text) for key, equals, text in (a.partition("=") for a in arguments)]
    typed = {key.lstrip("+") for key, text in pairs if text}
    chosen = [text[1:] for key, text in pairs if key == "task" and text.startswith(f"={GYM}")]
    stand_ins = {("task", name): file for name in (*TASKS, ARM, f"{GYM}ID", *chosen) if (file := file_of(name)) != name}
    config = configuration.load(CONFIGS, [key + text for key, text in pairs], ("task", "method", "preset"), stand_ins, MOVED)
    _follow_task(config, typed)
    configuration.check_ranges(config, RANGES)
    configuration.check_choices(config, CHOICES)
    _check_effects(config, typed)
    _follow_protocol(config, typed)
    if "augment" in config and not {"crop", "resized_crop"} & set(config["augment"]["order"]) and "image.size" not in typed:
        config["image"]["size"] = config["image"]["crop"]
    world_names([config["world"]], [config["intensity"]])
    if config["eval"]["worlds"]:
        world_names(config["eval"]["worlds"], config["eval"]["intensities"])
    check_data(config["data"])
    flat = dict(configuration.flatten(config))
    _check_random_steps(config, flat)
    conditions.check_device(config["device"])
    conditions.check_tracker(config["tracker"])
    conditions.check_transfer(config, typed)
    if "sac" not in config and config["preset"] in ("madi", "madi_small"):
        raise UserError(f"preset={config['preset']} has no settings for method={config['method']}: take paper, small or debug")
    for key in ("encoder.centre", "slac.centre"):
        if len(flat.get(key, [])) not in (0, 3):
            raise UserError(f"{key}={flat[key]} must hold a value per colour, or be []")
    if "sac" in config:
        _check_sac(config)
        _check_sizes(config)
        _check_views(config)
    for large, small in (("planet.candidates", "planet.elites"), ("slac.batch_size", "slac.model_batch")):
        if large in flat and flat[large] < flat[small]:
            raise UserError(f"{large}={flat[large]} must be at least {small}={flat[small]}")
    conditions.check_source(config, run_path(config))
    return config


def check_run(arguments: list[str]) -> Config:
    """Read the settings, and check that this machine has what their run needs."""
    config = read_config(arguments)
    if config.task == ARM:
        find(config.ur5e.model)
    return config


def _check_effects(config: Config, typed: set[str]) -> None:
    """Check that each typed key has an effect."""
    conditions.check_conditions(config, CONDITIONAL, typed)
    conditions.check_weights(config, WEIGHTS, typed)
    conditions.check_stages(config, STAGES, typed)
    if "eval.intensities" in typed and "distracting_cs" not in config["eval"]["worlds"]:
        raise UserError(f"key eval.intensities has no effect with eval.worlds={config['eval']['worlds']}: it is of distracting_cs")
    if "augment.intensity" in typed and config["quirks"]["rl_without_intensity"] and not {"mlr", "spr"} & set(config):
        raise UserError(f"key augment.intensity has no effect with method={config['method']} and quirks.rl_without_intensity=true")


def file_of(task: str) -> str:
    """The YAML file with a task's settings: its own, that of its domain, or other; gym of an environment of Gymnasium."""
    if task == ARM or task.startswith(GYM):
        return task.partition(":")[0]
    own = configuration.choices(CONFIGS, "task")
    if task in own or task not in TASKS:
        return task
    domain = TASKS[task][0]
    return domain if domain in own else "other"


def _follow_task(config: Config, typed: set[str]) -> None:
    """The block gym is for environments of Gymnasium, ur5e for the arm, worlds and shadows for the arm and tasks of the suite."""
    task = config["task"]
    gym, arm = task.startswith(GYM), task == ARM
    for block, has, whose in (("gym", gym, f"{GYM}ID"), ("ur5e", arm, ARM)):
        for key in sorted(typed):
            if key.startswith(f"{block}.") and not has:
                raise UserError(f"key {key} has no effect with task={task}: it is for task={whose}")
        if not has:
            del config[block]
    if not gym:
        return
    if useless := sorted(set(OF_SUITE) & typed):
        raise UserError(f"key {useless[0]} has no effect with task={task}: it is for tasks of the suite")
    if not re.fullmatch(GYM_ID, task):
        raise UserError(f"task={task} must look like {GYM}CarRacing-v3 or {GYM}ALE/Pong-v5; gym.import=PACKAGE imports what registers it")
    if config["world"] != "clean":
        raise UserError(f"world={config['world']} is for tasks of the suite: task={task} has only world=clean")
    config["eval"]["worlds"] = []  # a preset's


def _check_random_steps(config: Config, flat: dict[str, Any]) -> None:
    """The random steps end before the run does, and fill a window."""
    train, repeat = config["train"], config["action_repeat"]
    unit = unit_of(train)
    if unit == "episode":  # only the environment knows how long an episode is
        return
    counted = train["random_steps"]
    env_steps = counted * repeat if unit == "step" else counted
    if config["env_steps"] <= env_steps:
        named = "train.random_steps x action_repeat" if unit == "step" else "train.random_steps"
        raise UserError(f"env_steps={config['env_steps']} must exceed {named} = {env_steps}: nothing is learnt before")
    for key in window_keys(config):
        more = WINDOWS[key] + 2
        need = flat[key] + more
        if env_steps < need * repeat:
            sum_up = f"{key} + {more} = {need}" if unit == "step" else f"({key} + {more}) x action_repeat = {need * repeat}"
            raise UserError(f"train.random_steps={counted} must be at least {sum_up}")


def _check_sac(config: Config) -> None:
    centre, low_high, betas = config["encoder"]["centre"], config["sac"]["log_std"], config["sac"]["alpha_betas"]
    if "mlr" in config and config["mlr"]["mask"]["fill"] == "mean" and not centre:
        raise UserError("mlr.mask.fill=mean takes encoder.centre, which is []: set it, or mlr.mask.fill=black")
    if len(low_high) != 2 or low_high[0] >= low_high[1]:
        raise UserError(f"sac.log_std={low_high} must be two numbers, the smaller one first")
    if len(betas) != 2:
        raise UserError(f"sac.alpha_betas={betas} must be two numbers")


def _check_sizes(config: Config) -> None:
    """Frames, augmentations, convolutions and masks fit together."""
    encoder, image, quirks = config["encoder"], config["image"], config["quirks"]
    layers = len(encoder["strides"])
    geometry.convolved(image["crop"], [encoder["filters"]] * layers, [3] * layers, encoder["strides"], same=False)
    geometry.check_order(config["augment"]["order"], image["size"], image["crop"], quirks.get("resampled_crop", False))
    if "mlr" in config:
        mlr, mask = config["mlr"], config["mlr"]["mask"]
        shape = (mlr["window"], image["size"], mask["patch"], mask["block"], mask["ratio"], mask["strategy"])
        geometry.Cells(*shape, ratio_per_block=quirks["mask_ratio_per_block"])
        geometry.check_heads(mlr["decoder"]["width"], mlr["decoder"]["heads"])


def _check_views(config: Config) -> None:
    """What methods need of the augmentations, and of each other."""
    method, augment, image = config["method"], config["augment"], config["image"]
    order, crop = augment["order"], image["crop"]
    own = [name for name in order if name != "intensity" or not config["quirks"]["rl_without_intensity"]]
    differ = geometry.varies(own, image["size"], crop, augment["pad"], augment["intensity"])
    if method == "sac" and order:
        raise UserError("method=sac augments nothing: with augment.order=[shift] it is method=drq, with [crop] method=rad")
    if method == "rad" and ("crop" not in order or not augment["next_obs"] or image["size"] <= crop):
        raise UserError(
            "method=rad crops observations and next observations: leave augment.order=[crop] and augment.next_obs=true, "
            f"and image.size above image.crop={crop}"
        )
    if method == "drq" and ("shift" not in order or not augment["next_obs"] or not differ):
        raise UserError("method=drq shifts observations and next observations: leave augment.order, augment.pad and augment.next_obs")
    if method == "curl" and not differ:
        raise UserError("method=curl compares two views of an observation, which must differ: leave augment.order=[crop] and image.size")
    if method == "sac_ae" and order:
        raise UserError("method=sac_ae augments nothing: leave augment.order=[]")
    if method == "playvirtual" and config["spr"]["variant"] != "A":
        raise UserError(f"method=playvirtual is built on SPR's variant A, not spr.variant={config['spr']['variant']}")


def unit_of(train: Config) -> str:
    """What train.random_steps and train.update_every count: step, env_step or episode."""
    return train.unit if "unit" in train else "step"


def window_keys(config: Config) -> list[str]:
    """The keys that set the length of this method's windows."""
    return [key for key in WINDOWS if key.split(".")[0] in config]


def _follow_protocol(config: Config, typed: set[str]) -> None:
    """protocol=dmcgb: take action_repeat and env_steps from the block dmcgb, unless the user or the preset sets them."""
    repeat, agent_steps = config.dmcgb.action_repeat, config.dmcgb.agent_steps
    if config.protocol != "dmcgb":
        return
    preset = configuration.keys_in(CONFIGS, config.preset, config.method)
    for key, other in (("action_repeat", "dmcgb.action_repeat"), ("env_steps", "dmcgb.agent_steps")):
        if {key, other} <= typed:
            raise UserError(f"{key} and {other} set the same value: leave one of them out")
        if other in typed or key not in typed | preset:
            config[key] = repeat if key == "action_repeat" else agent_steps * config["action_repeat"]


def run_path(config: Config) -> Path:
    return paths.run_path(config.runs, "dmcontrol", config.task, config.method, config.preset, config.seed, config.name)


def worlds_of(config: Config) -> list[WorldName]:
    """The world of the training, then the other worlds for evaluation."""
    own = world_names([config.world], [config.intensity])
    extra, intensities = config.eval.worlds, config.eval.intensities
    return list(dict.fromkeys(own + (world_names(extra, intensities) if extra else [])))
