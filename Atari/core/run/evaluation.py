"""What both trees share when a saved policy is judged: the request, the policy, and how a result is told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import machine
from ..errors import UserError
from .agent import Agent
from .checkpoint import Checkpoints
from .config import Config, check_saved, plain
from .folder import read_config
from .options import Options

DEFAULTS = {"run": "", "episodes": "", "video": "false", "device": "auto", "seed": "", "threads": "0"}
PACKED = "policy"  # the folder in which a packed run has the networks that act
EXPORTED = "policy.safetensors"
APART = 10_000  # added to the run's seed: initial states apart from those that its own evaluations used


@dataclass(frozen=True)
class Request:
    options: Options
    path: Path  # of the run
    config: Config
    precision: machine.Precision
    seed: int
    episodes: int | None  # None: the tree decides
    film: bool


def read_request(arguments: list[str], example: str, configs: Path, ranges: dict, more: dict[str, str]) -> Request:
    """Check what the user typed. more: options of the tree with their defaults; example: how a run is named."""
    options = Options(arguments, DEFAULTS | more)
    threads, film = options.whole("threads", 0, 1024), options.flag("video")
    episodes = options.whole("episodes", 1, 10_000) if options["episodes"] else None
    seed = options.whole("seed") if options["seed"] else None
    if not options["run"]:
        raise UserError(f"say which run: {example}")
    path, config, precision = read_run(options["run"], options["device"], configs, ranges)
    machine.set_threads(threads)
    return Request(options, path, config, precision, config.seed + APART if seed is None else seed, episodes, film)


def read_run(run: str | Path, device: str, configs: Path, ranges: dict) -> tuple[Path, Config, machine.Precision]:
    """The folder of a run, its settings, and the number format on this device."""
    path = Path(run)
    config = read_config(path)
    check_saved(config, configs, ranges, path / "config.yaml")
    return path, config, machine.choose_precision(config.precision, machine.choose_device(device))


def for_acting(config: Config) -> Config:
    """Acting needs no overlay images; those of the training may be gone."""
    config = Config(plain(config))
    if "strong_augmentation" in config:
        config["strong_augmentation"]["kind"] = "none"
    return config


def load_policy(path: Path, make: Callable[[], Agent], precision: machine.Precision) -> tuple[Agent, int]:
    """The newest saved agent of a run, and its agent step."""
    if (path / EXPORTED).exists():
        return load_exported(path, make(), precision)
    saved = Checkpoints(path / "checkpoint").load(("agent",), precision.device)
    if saved is None and (path / PACKED).exists():
        return load_packed(path, make(), precision)
    if saved is None:
        raise UserError(f"{path} holds no saved policy yet: let the run reach its first checkpoint")
    manifest, parts = saved
    agent = make()
    agent.load_networks(parts["agent"])
    return agent, manifest["step"]


def load_packed(path: Path, agent: Agent, precision: machine.Precision) -> tuple[Agent, int]:
    """The agent of a packed run."""
    saved = Checkpoints(path / PACKED).load(None, precision.device)
    if saved is None:
        raise UserError(f"{path / PACKED} is incomplete: its other files are in other files of the pack")
    manifest, parts = saved
    load_acting(agent, parts)
    print(f"{path}: its policy was packed at half precision")
    return agent, manifest["step"]


def load_exported(path: Path, agent: Agent, precision: machine.Precision) -> tuple[Agent, int]:
    """The agent that scripts/export.sh wrote."""
    said, tensors = read_exported(path, str(precision.device))
    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        network, key = name.split("/", 1)
        parts.setdefault(network, {})[key] = tensor
    load_acting(agent, parts)
    return agent, int(said["step"])


def read_exported(path: Path, device: str = "cpu") -> tuple[dict[str, str], dict[str, Any]]:
    """The metadata of an export, and its tensors by name."""
    from safetensors import SafetensorError, safe_open  # is needed here alone

    try:
        with safe_open(path / EXPORTED, "pt", device=device) as file:
            names = file.keys()
            return file.metadata(), {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path / EXPORTED} cannot be read ({error}): export the run again") from error


def load_acting(agent: Agent, parts: dict[str, dict[str, Any]]) -> None:
    """Load the networks that act. The others keep their initial weights, and the objective is removed.

    agent.lacking: the names of the transferable networks that kept initial weights.
    """
    networks = agent.networks()
    agent.load_networks(networks | {name: networks[name] | part for name, part in parts.items()})
    agent.objective = None
    loaded = {id(p) for name, part in parts.items() for key, p in agent.modules[name].named_parameters() if key in part}
    agent.lacking = [name for name, part in agent.transferable.items() if not loaded.issuperset(map(id, part.parameters()))]


def actions_of(path: Path) -> int | None:
    """How many actions an exported agent has; None for a run: its environment tells."""
    return int(read_exported(path)[0]["actions"]) if (path / EXPORTED).exists() else None


def spread(returns: np.ndarray) -> str:
    return f"{returns.mean():.1f} +- {returns.std():.1f} (min {returns.min():.1f}, max {returns.max():.1f})"


def report(path: Path, heading: str, step: int, found: list[tuple[str, np.ndarray]], kind: str) -> list[Path]:
    """A table and a bar plot of mean and standard deviation over the episodes of each world or distraction, as `kind` says."""
    import matplotlib  # takes a second, and a run in training never draws

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [
        f"{heading}: mean, standard deviation, least and greatest return",
        "",
        f"| {kind} | mean | std | min | max |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {r.mean():.1f} | {r.std():.1f} | {r.min():.1f} | {r.max():.1f} |" for name, r in found]
    table, plot = path / f"{kind}s_{step:09d}.md", path / f"{kind}s_{step:09d}.png"
    table.write_text("\n".join(lines) + "\n")
    figure, axes = pyplot.subplots(figsize=(7, 0.8 + 0.35 * len(found)), layout="constrained")
    names, rows = [n for n, _ in found], range(len(found))
    axes.barh(rows, [r.mean() for _, r in found], xerr=[r.std() for _, r in found], color="#0072B2", error_kw={"ecolor": "#555555"})
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xlim(left=min(0, *(r.mean() - r.std() for _, r in found)))
    axes.set_xlabel("return (mean and std over episodes)")
    figure.suptitle(heading, fontsize=9)
    figure.savefig(plot, dpi=120)
    pyplot.close(figure)
    print("\n".join(["", *lines, ""]))
    return [table, plot]
