"""Many runs from one command: python -m TREE.train --multirun task=a,b seed=1,2,3 [hydra/launcher=submitit_slurm]

Hydra passes each combination of the listed values to a launcher, which runs them one after the other in this process or as
jobs of a cluster. A job does what the same command without --multirun does. A job that is preempted (SIGUSR2 or SIGTERM)
saves, returns to the queue and resumes.
"""

import importlib
import itertools
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from ..errors import Failure, UserError, nearest

FLAGS = ("--multirun", "-m")
MOST = 10_000  # runs of one command


def asked(arguments: list[str]) -> bool:
    """Whether the user wants several runs."""
    many = any(a in FLAGS for a in arguments)
    launcher = [a for a in arguments if a.startswith("hydra")]
    if launcher and not many:
        raise UserError(f"{launcher[0]} needs several runs: add --multirun")
    return many


def check(configs: Path, arguments: list[str], check_one: Callable[[list[str]], Any]) -> None:
    """Check the settings of every run that these arguments ask for, of one or of several."""
    if not asked(arguments):
        check_one(arguments)
        return
    own, typed = _split(arguments)
    for combination in combinations(typed):
        check_one(combination)
    _launcher(configs, own)


def main(program: str, configs: Path, arguments: list[str], check_one: Callable[[list[str]], Any]) -> int:
    """Check every combination, then launch them all. program: the module that a job runs, such as DMControl.train."""
    check(configs, arguments, check_one)
    own, typed = _split(arguments)
    own = _launcher(configs, own) + own
    # the leading + lets Hydra accept keys that multirun.yaml lacks; the tree checks them
    sys.argv = [sys.argv[0], FLAGS[0], *own, f"program={program}", *("+" + a for a in typed)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints a traceback and ends the process
    try:
        hydra.main(version_base="1.3", config_path=str(configs.resolve()), config_name="multirun")(job)()
    except HydraException as error:
        raise UserError(str(error)) from error
    except RuntimeError as error:
        if type(error).__name__ not in ("FailedJobError", "UncompletedJobError"):  # submitit's, which need not be installed
            raise
        if str(error).startswith("sbatch"):
            raise UserError(f"Slurm refuses the jobs ({error}): configs/launcher/submitit_slurm.yaml says what may be set") from error
        raise Failure("a job failed or was cancelled: multirun/ beside the runs holds its log, and the same command goes on") from error
    return 0


def job(config: DictConfig) -> None:
    """One run."""
    arguments = [without_escape(o.lstrip("+")) for o in HydraConfig.get().overrides.task if not o.startswith("program=")]
    from .folder import Stop  # not at the top: it imports torch, which checking the settings does not need

    requeue = signal.getsignal(signal.SIGUSR2)
    if callable(requeue):  # submitit's handler
        Stop.signals, Stop.cluster_job = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2), True
    code = importlib.import_module(config.program).main(arguments)
    if code == 128 + signal.SIGUSR2:  # the run has saved: requeue it
        requeue(signal.SIGUSR2, None)
    if code == 128 + signal.SIGTERM and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        _wait_for_slurm(requeue)
    if code:
        sys.exit(code)  # the user stopped this run: end the sweep


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments for Hydra, and those for the runs."""
    words = [a for a in arguments if a not in FLAGS]
    return [a for a in words if a.startswith("hydra")], [a.lstrip("+") for a in words if not a.startswith("hydra")]


def _wait_for_slurm(requeue: Callable[..., Any]) -> None:
    """After SIGTERM and the save. Slurm requeues a preempted job only if it still runs when its grace time ends."""
    print("saved: waiting until Slurm requeues or ends this job", flush=True)
    signal.signal(signal.SIGUSR2, requeue)
    while True:
        time.sleep(1)


def combinations(typed: list[str]) -> list[list[str]]:
    """seed=1,2 task=a,b -> the four argument lists."""
    options = []
    for argument in typed:
        try:
            override = OverridesParser.create().parse_override(argument)
            key = override.get_key_element()
            values = [argument]
            if override.is_sweep_override():
                listed = itertools.islice(override.sweep_string_iterator(), MOST + 1)  # a range may have no end in sight
                values = [without_escape(f"{key}={v}") for v in listed]
        except HydraException as error:
            raise UserError(f"argument {argument} cannot be read: write key=value or key=value,value") from error
        options.append(values)
    count = math.prod(map(len, options))
    if count > MOST:
        raise UserError(f"these lists make more than {MOST:,} runs: split them")
    return [list(run) for run in itertools.product(*options)]


def without_escape(argument: str) -> str:
    """Hydra escapes a colon in a listed value as \\:, but the name of a task has a plain colon."""
    return argument.replace("\\:", ":")


def _launcher(configs: Path, own: list[str]) -> list[str]:
    """The values of configs/launcher/NAME.yaml as arguments, which those of the user override."""
    chosen = [a.partition("=")[2] for a in own if a.startswith("hydra/launcher=")]
    if not chosen or chosen[-1] == "basic":
        return []
    known = {"basic"} | {p.stem for p in (configs / "launcher").glob("*.yaml")}
    if chosen[-1] not in known:
        raise UserError(f"hydra/launcher={chosen[-1]} is unknown: {nearest(chosen[-1], known)}")
    if find_spec("submitit") is None:
        raise UserError(f"hydra/launcher={chosen[-1]} needs packages: pip install -r requirements-cluster.txt")
    if chosen[-1] == "submitit_slurm" and which("srun") is None:
        raise UserError("Slurm's commands sbatch and srun are not on this machine: submit from a machine of the cluster")
    values = yaml.safe_load((configs / "launcher" / f"{chosen[-1]}.yaml").read_text())
    return [f"hydra.launcher.{key}={value}" for key, value in values.items() if value is not None]
