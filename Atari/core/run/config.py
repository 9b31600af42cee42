"""The configuration: YAML groups composed by Hydra, checked once, then plain attributes.

config.yaml and the method files declare all keys. Task and preset files may only set them. A key or a block of config.yaml that a
method's file sets to null does not exist for that method.
"""

import copy
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, nearest

# Keys that the saved settings of older runs lack, with the values that describe what they did. Every new key of an old method belongs here.
ADDED = {"env_timeout": 0.0, "tracker": "tensorboard", "encoder.centre": False, "mlr.mask.fill": "black",
         "dreamer.model_updates": 0, "slac.centre": [], "slac.pixel_variance": 0.1}  # fmt: skip


class Config(dict):
    """Nested settings with attribute access. Records which keys were read, so that a test can find dead keys."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({k: Config(v) if isinstance(v, dict) else v for k, v in values.items()})
        self.__dict__["seen"] = set()

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)  # Python looks these up itself
        self.__dict__["seen"].add(key)
        return self[key]

    def __missing__(self, key: str) -> Any:
        raise UserError(f"key {key} is missing: restore its line in the YAML file, or use the version of this code that wrote the file")

    def unread(self, prefix: str = "") -> list[str]:
        out = []
        for key, value in self.items():
            if isinstance(value, Config) and key in self.__dict__["seen"]:
                out += value.unread(f"{prefix}{key}.")
            elif key not in self.__dict__["seen"]:
                out.append(prefix + key)
        return out


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def choices(folder: Path, group: str) -> list[str]:
    return sorted(p.stem for p in (folder / group).glob("*.yaml"))


def keys_in(folder: Path, preset: str, method: str) -> set[str]:
    """The keys that a preset sets: in its file, in the files in its defaults, and in their files for this method."""
    names = [*_presets(folder, preset), *(f"{base}/{method}" for base in _presets_of_method(folder, preset, method))]
    return {key for name in names for key, _ in flatten(_read(folder / "preset" / f"{name}.yaml"))}


def load(
    folder: Path,
    arguments: list[str],
    groups: tuple[str, ...],
    stand_ins: dict[tuple[str, str], str] | None = None,
    moved: dict[str, str] | None = None,
) -> Config:
    """Compose the configuration from the YAML files and the command line, and check it.

    groups: the Hydra groups, such as task, method, preset.
    stand_ins: {(group, chosen name): file to use instead}, for valid names without a file of their own.
    moved: {old name of a key: new name}
    """
    stand_ins, moved = stand_ins or {}, moved or {}
    known, methods = _schema(folder)
    chosen = _defaults(folder, groups)
    typed = [(argument, *_parse(argument)) for argument in arguments]
    chosen |= {key: str(value) for _, key, value in typed if key in groups}
    for group in groups:
        if group not in chosen:
            raise UserError(f"{folder / 'config.yaml'} names no {group} under defaults: write {group}=... or restore the line")
    for group, name in chosen.items():
        valid = set(choices(folder, group)) | {n for g, n in stand_ins if g == group}
        valid -= {file for (g, _), file in stand_ins.items() if g == group}  # such as `other`: it cannot be chosen itself
        if name not in valid:
            raise UserError(f"{group}={name} is unknown: {nearest(name, valid)}")
    own = methods.get(chosen["method"], [])
    others_blocks = {block for blocks in methods.values() for block in blocks} - set(own)
    for _, key, _ in typed:
        if key not in known and key not in groups:
            raise UserError(_unknown(key, [*known, *groups], moved))
        if key not in groups and not _applies(folder, chosen["method"], key):
            raise UserError(f"key {key} has no effect with method={chosen['method']}")
    files = [f"{group}={stand_ins.get((group, name), name)}" for group, name in chosen.items()]
    of_method = _presets_of_method(folder, chosen["preset"], chosen["method"])
    files += [f"preset/{preset}={chosen['method']}" for preset in of_method]
    values = _compose(folder, files + [argument for argument, key, _ in typed if key not in groups])
    for group, name in chosen.items():
        if isinstance(values.get(group), dict):
            file = folder / group / f"{stand_ins.get((group, name), name)}.yaml"
            if group == "preset" and (nested := [preset for preset in of_method if preset in values[group]]):
                file = folder / group / nested[0] / f"{chosen['method']}.yaml"
            raise UserError(f"{file} must begin with the line '# @package _global_': add it, or its keys have no effect")
    values |= chosen  # a stand-in file cannot contain the chosen name
    for key in (*others_blocks, *_absent(folder, chosen["method"])):
        _remove(values, key)
    for key, value in flatten(values):
        if key not in known and key not in groups:
            raise UserError(f"in the YAML files: {_unknown(key, known, moved)}")
        if key in known:
            _check_type(key, value, known[key])
    for key in known:
        if isinstance(value := _value_at(values, key), dict):
            raise UserError(f"{key}={value} must be a plain value")
    return Config(_as_declared(values, known))


def _unknown(key: str, known: Iterable[str], moved: dict[str, str]) -> str:
    return f"key {key} is now {moved[key]}" if key in moved else f"key {key} is unknown: {nearest(key, known)}"


def check_saved(config: Config, folder: Path, ranges: dict[str, tuple[float | None, float | None]], file: Path) -> None:
    """Check the settings of a run folder: every key is known, every value has the right type and range."""
    known, _ = _schema(folder)
    own = {"method": "word", **dict.fromkeys(("task", "game", "preset"), "word")}
    for key, value in flatten(config):
        declared = known.get(key, own.get(key))
        if key not in known and key not in own:
            raise UserError(f"{file} has a key {key} that is unknown here: undo the edit, or use the version of the code that wrote it")
        _check_type(key, value, declared)
    check_ranges(config, ranges)


def check_ranges(config: Config, ranges: dict[str, tuple[float | None, float | None]]) -> None:
    """Check that each named number lies within [low, high]. Keys that the method lacks are skipped."""
    values = dict(flatten(config))
    for key, (low, high) in ranges.items():
        for value in values[key] if isinstance(values.get(key), list) else [values.get(key)]:
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(f"{key}={value} must be a number")
            if (low is not None and value < low) or (high is not None and value > high):
                span = f"at least {low}" if high is None else f"between {low} and {high}"
                raise UserError(f"{key}={value} must be {span}")


def check_choices(config: Config, choices: dict[str, tuple[str, ...]]) -> None:
    """Check that each named key has one of these words. Keys that the method lacks are skipped."""
    for key, value in flatten(config):
        if value not in choices.get(key, (value,)):
            raise UserError(f"{key}={value} is unknown: {nearest(value, choices[key])}")


def plain(config: Config) -> dict[str, Any]:
    return {k: plain(v) if isinstance(v, Config) else v for k, v in config.items()}


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """The saved settings of a run, completed by the keys that were added since, in the blocks that it has."""
    for key, value in ADDED.items():
        outer, _, last = key.rpartition(".")
        block = _value_at(values, outer) if outer else values
        if isinstance(block, dict):
            block.setdefault(last, value)
    return values


def digest(config: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    """A hash of the settings, without the keys under `without`."""
    kept = {k: v for k, v in flatten(config) if not _under(k, without) and not (k in ADDED and v == ADDED[k])}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def differences(old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...]) -> list[str]:
    """The keys whose values differ, as `key (old -> new)`, without the keys under `free`."""
    a, b = dict(flatten(old)), dict(flatten(new))
    keys = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    return [f"{k} ({a.get(k)} -> {b.get(k)})" for k in keys if not _under(k, free)]


def _value_at(values: dict[str, Any], key: str) -> Any:
    """values[a][b] for the key a.b, or None."""
    for part in key.split("."):
        if not isinstance(values, dict):
            return None
        values = values.get(part)
    return values


def _remove(values: dict[str, Any], key: str) -> None:
    outer, _, last = key.rpartition(".")
    ((_value_at(values, outer) if outer else values) or {}).pop(last, None)


def _under(key: str, blocks: tuple[str, ...]) -> bool:
    return any(key == b or key.startswith(b + ".") for b in blocks)


def _schema(folder: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Every key with its declared value, and for each method the blocks that belong to it."""
    known, methods = {}, {}
    shared = _read(folder / "config.yaml")
    files = [folder / "config.yaml", *sorted((folder / "method").glob("*.yaml"))]
    for file in files:
        values = _read(file)
        values.pop("defaults", None)
        values.pop("method", None)
        if file.parent.name == "method":  # a block of config.yaml belongs to all methods
            methods[file.stem] = [k for k, v in values.items() if isinstance(v, dict) and k not in shared]
        declared = {key: value for key, value in flatten(values) if value is not None or file.parent.name != "method"}
        known = declared | known  # the value in config.yaml takes precedence
    for name in methods:
        methods[name] += [block for base in _bases(folder, name) for block in methods[base]]
    return known, methods


def _bases(folder: Path, name: str, group: str = "method") -> list[str]:
    """The files in the defaults of this one, and theirs."""
    listed = _read(folder / group / f"{name}.yaml").get("defaults", [])
    named = [str(e) for e in listed if e != "_self_" and not isinstance(e, dict)]  # a dict chooses from another group
    return named + [base for other in named for base in _bases(folder, other, group)]


def _presets(folder: Path, preset: str) -> tuple[str, ...]:
    """The preset and those in its defaults."""
    return (preset, *_bases(folder, preset, "preset"))


def _presets_of_method(folder: Path, preset: str, method: str) -> list[str]:
    """Those of them with a file for this method, such as preset/paper/curl.yaml."""
    return [name for name in _presets(folder, preset) if method in choices(folder, f"preset/{name}")]


def _defaults(folder: Path, groups: tuple[str, ...]) -> dict[str, str]:
    """The choices under defaults in config.yaml."""
    entries = [e for e in _read(folder / "config.yaml").get("defaults", []) if isinstance(e, dict)]
    return {group: str(name) for entry in entries for group, name in entry.items() if group in groups}


def _applies(folder: Path, method: str, key: str) -> bool:
    """Whether config.yaml, the method's file or one in its defaults declares this key."""
    files = [folder / "config.yaml", *_method_files(folder, method)]
    return any(key in dict(flatten(_read(file))) for file in files) and not _under(key, _absent(folder, method))


def _method_files(folder: Path, method: str) -> list[Path]:
    """The method's file and those in its defaults."""
    return [folder / "method" / f"{name}.yaml" for name in (method, *_bases(folder, method))]


def _absent(folder: Path, method: str) -> tuple[str, ...]:
    """Keys and blocks that do not exist for this method."""
    return tuple(key for file in _method_files(folder, method) for key, value in flatten(_read(file)) if value is None)


def _read(file: Path) -> dict[str, Any]:
    try:
        stat = file.stat()
        return copy.deepcopy(_parse_file(file, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=256)
def _parse_file(file: Path, *version: int) -> dict[str, Any]:
    """The cache is keyed by the version of the file, so a changed file is parsed again."""
    try:
        values = OmegaConf.to_container(OmegaConf.load(file))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file} is not valid YAML: {error}") from error
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{file} must hold keys and values")
    return values or {}


def _parse(argument: str) -> tuple[str, Any]:
    if "=" not in argument:
        raise UserError(f"argument {argument} must have the form key=value")
    try:
        override = OverridesParser.create().parse_override(argument)
        if override.is_delete() or override.is_sweep_override():
            raise UserError(f"argument {argument} must have the form key=value")
        return override.key_or_group.replace("@", ""), override.value()
    except (OverrideParseException, HydraException) as error:
        raise UserError(f"argument {argument} cannot be read: write key=value, and quote values with spaces or symbols") from error


def _compose(folder: Path, overrides: list[str]) -> dict[str, Any]:
    for file in folder.rglob("*.yaml"):
        _read(file)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            composed = compose("config", overrides)
            return OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"the configuration cannot be composed: {error}") from error


def _check_type(key: str, value: Any, declared: Any) -> None:
    def fits(value: Any, declared: Any) -> bool:
        if declared is None:
            return value is None or isinstance(value, (int, float, str, bool))
        if isinstance(declared, bool) or isinstance(value, bool):
            return isinstance(declared, bool) and isinstance(value, bool)
        if isinstance(declared, int):
            return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(declared, float):
            return isinstance(value, (int, float)) and math.isfinite(value)
        if isinstance(declared, str):
            return isinstance(value, (str, int, float))  # name=123 is valid
        if isinstance(declared, list):
            return isinstance(value, list) and (not declared or all(fits(v, declared[0]) for v in value))
        return isinstance(value, type(declared))

    if not fits(value, declared):
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", list: f"a list like {declared}"}
        raise UserError(f"{key}={value} must be {kinds.get(type(declared), 'a plain value')}")


def _as_declared(values: dict[str, Any], known: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Convert whole floats to ints and ints to floats where the declared value has that type."""
    out = {}
    for key, value in values.items():
        declared = known.get(prefix + key)
        if isinstance(value, dict):
            value = _as_declared(value, known, f"{prefix}{key}.")
        elif isinstance(declared, int) and isinstance(value, float):
            value = int(value)
        elif isinstance(declared, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif isinstance(declared, str):
            value = str(value)
        out[key] = value
    return out
