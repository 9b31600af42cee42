"""Keys that the user typed must have an effect: some have one only with certain values of other keys."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from .config import Config, flatten

WANDB = "wandb==0.31.0"  # as in requirements-wandb.txt


def check_conditions(config: Config, conditions: Iterable[tuple], typed: set[str]) -> None:
    """conditions: (key, other key, values of the other key with which the key has an effect, optional advice). None: all but 0 and []."""
    values = dict(flatten(config))
    for key, other, words, *advice in conditions:
        if key not in typed or (values[other] if words is None else values[other] in words):
            continue
        takes = "another one" if words is None else f"{other}={' or '.join(map(as_typed, words))}"
        raise UserError(f"key {key} has no effect with {other}={as_typed(values[other])}: it takes {'; '.join([takes, *advice])}")


def check_stages(config: Config, stages: dict[str, str], typed: set[str]) -> None:
    """stages: keys of an augmentation, which have an effect only if augment.order names it."""
    for key, stage in stages.items():
        if key in typed and stage not in config["augment"]["order"]:
            raise UserError(f"key {key} has no effect with augment.order={config['augment']['order']}: it is of {stage}")


def check_weights(config: Config, weights: dict[str, tuple[tuple[str, ...], tuple[str, ...]]], typed: set[str]) -> None:
    """weights: {block: (its weights, further keys)}. With all weights 0 the objective of this block does not exist."""
    values = dict(flatten(config))
    for block, (names, further) in weights.items():
        own = [name for name in names if name in values]
        if block not in config or any(values[name] for name in own):
            continue
        for key in sorted(typed):
            if key not in own and (key.startswith(f"{block}.") or key in further):
                raise UserError(f"key {key} has no effect with {' and '.join(f'{name}=0' for name in own)}")


def check_device(name: str) -> None:
    """Check the form of the name. Whether the machine has the device is checked when a run starts."""
    if not re.fullmatch(r"auto|(cpu|cuda)(:\d{1,3})?", name):
        raise UserError(f"device={name} is unknown: use auto, cpu, cuda or cuda:1")


def check_tracker(name: str) -> None:
    """Check that the tracker's package is installed."""
    if name == "wandb" and find_spec("wandb") is None:
        raise UserError(f"tracker=wandb needs a package: pip install {WANDB}")


def check_transfer(config: Config, typed: set[str]) -> None:
    """Without a source run, remove the block `transfer`: the settings are then the same as before this block existed."""
    transfer = config["transfer"]
    if not transfer["run"]:
        for key in sorted(typed & {"transfer.parts", "transfer.freeze"}):
            raise UserError(f"key {key} has no effect without transfer.run=RUN_DIR")
        del config["transfer"]
        return
    transfer["run"] = str(Path(transfer["run"]).resolve())
    if not transfer["parts"] or len(set(transfer["parts"])) < len(transfer["parts"]):
        raise UserError(f"transfer.parts={as_typed(transfer['parts'])} must name parts, each once, such as transfer.parts=[encoder]")


def check_source(config: Config, run: Path) -> None:
    """Check that the source run exists and reads images alike. run: the folder of this run, which needs no source once it has saved."""
    if "transfer" not in config or any((run / "checkpoint").glob("step_*")):
        return
    source = Path(config["transfer"]["run"])
    try:
        saved = yaml.safe_load((source / "config.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"transfer.run={source} is not the folder of a run or an export: it has no config.yaml that can be read") from error
    tree = "task" if "task" in config else "game"
    if not isinstance(saved, dict) or tree not in saved:
        raise UserError(f"transfer.run={source} is no run of this tree: its config.yaml names no {tree}")
    own, other = dict(flatten(config)), dict(flatten(saved))
    for part in config["transfer"]["parts"]:
        keys = [key for key in own if key.startswith(f"{part}.") and key in other and key != "masker.lr"]
        apart = [key for key in keys if own[key] != other[key]]
        if apart:
            said = ", ".join(f"{key}={as_typed(other[key])} there and {as_typed(own[key])} here" for key in apart)
            raise UserError(f"transfer.parts={part} must mean the same in both runs, but {said}")


def as_typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
