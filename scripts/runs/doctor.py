"""Look at the machine and say what would stop a run. Exit code 1 if something would."""

from __future__ import annotations  # so that torch may be what is missing

import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from Atari.core.errors import UserError as AtariError
from DMControl.core.errors import UserError, run_main
from DMControl.renderer import BACKENDS, PACKAGES, choose_renderer, probe

ROOT = Path(__file__).resolve().parents[2]

if TYPE_CHECKING:
    import torch

    from DMControl.core import machine


class Report:
    def __init__(self) -> None:
        self.bad = 0

    def say(self, good: bool | None, text: str) -> None:
        """good: fine, wrong, or None for a remark."""
        self.bad += good is False
        print(f"{ {True: 'ok   ', False: 'BAD  ', None: 'note '}[good] } {text}")


def check_versions(report: Report) -> None:
    python = sys.version_info[:2]
    report.say((3, 11) <= python <= (3, 12), f"Python {sys.version.split()[0]} (3.11 or 3.12)")
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        pin = re.match(r"^([A-Za-z0-9_.-]+)==(\S+)", line)
        if not pin:
            continue
        name, wanted = pin.groups()
        try:
            found = version(name)
        except PackageNotFoundError:
            report.say(False, f"{name} is missing (pinned: {wanted}): delete .venv and run scripts/setup.sh")
            continue
        same = found.split("+")[0] == wanted
        if name == "torch" and not same:
            fits = (2, 11) <= tuple(int(x) for x in found.split(".")[:2]) <= (2, 13)
            report.say(fits, f"torch {found} (pinned {wanted}; 2.11 to 2.13 work)")
        else:
            report.say(same, f"{name} {found}" + ("" if same else f", but {wanted} is pinned: delete .venv and run scripts/setup.sh"))


def check_renderer(report: Report) -> None:
    chosen = os.environ.get("MUJOCO_GL")
    works = []
    for backend in [chosen] if chosen else BACKENDS:
        reason = probe(backend)
        if reason:
            package = PACKAGES.get(backend, "a backend MuJoCo knows: egl, osmesa or glfw")
            report.say(None, f"renderer {backend} does not work ({reason}); it needs {package}")
        else:
            works.append(backend)
            report.say(True, f"renderer {backend} renders a frame")
    if not works:
        report.say(False, "no renderer works: apt-get install libosmesa6" + (f", or unset MUJOCO_GL={chosen}" if chosen else ""))


@dataclass(frozen=True)
class Need:
    """What a run takes, in bytes: replay, networks, activations."""

    label: str
    device: torch.device
    precision: machine.Precision
    runs: str
    memory: dict[str, int]


def dmcontrol_need(arguments: list[str]) -> Need:
    choose_renderer()
    from DMControl.core import machine
    from DMControl.env import TRAIN, Env
    from DMControl.memory import memory
    from DMControl.settings import read_config

    config = read_config(arguments)
    device = machine.choose_device(config.device)
    precision = machine.choose_precision(config.precision, device)
    env = Env(config.task, config.action_repeat, config.image.size, config.image.shadows, 0, TRAIN)
    label = f"{config.task}, {config.method}, preset {config.preset}"
    return Need(label, device, precision, config.runs, memory(config, env.action_dim, precision))


def atari_need(arguments: list[str]) -> Need:
    from Atari.core import machine
    from Atari.env import TRAIN
    from Atari.evaluate import make_env
    from Atari.memory import memory
    from Atari.settings import read_config

    config = read_config(arguments)
    device = machine.choose_device(config.device)
    precision = machine.choose_precision(config.precision, device)
    label = f"{config.game}, {config.method}, preset {config.preset}"
    return Need(label, device, precision, config.runs, memory(config, make_env(config, 0, TRAIN).n_actions, precision))


def check_room(report: Report, need: Need) -> None:
    import torch

    from DMControl.core import machine

    replay, networks = need.memory["replay"], need.memory["networks"]
    total = sum(need.memory.values()) + machine.GIB // 2  # half a GB for the libraries
    saves = replay + 3 * networks  # the two newest saves, and the one being written
    free, disk = machine.free_memory(need.device), machine.free_disk(Path(need.runs))
    where = "GPU memory" if need.device.type == "cuda" else "RAM"
    report.say(
        total < free,
        f"{need.label} needs about {machine.gigabytes(total)} of {where}, {machine.gigabytes(replay)} of it for the replay; "
        f"{machine.gigabytes(free)} are free",
    )
    report.say(saves < disk, f"saves need up to {machine.gigabytes(saves)} of disk; {machine.gigabytes(disk)} are free")
    dtype = str(need.precision.dtype)[6:]
    report.say(None, f"device {need.device}: {machine.describe(need.device)}; {dtype}; torch {torch.__version__}")


def main(arguments: list[str]) -> int:
    report = Report()
    atari = any(a.startswith("game=") for a in arguments)
    check_versions(report)
    if not atari:
        check_renderer(report)
    if not report.bad:
        try:
            check_room(report, atari_need(arguments) if atari else dmcontrol_need(arguments))
        except (UserError, AtariError) as error:
            report.say(False, str(error))
    print("all is well" if not report.bad else f"{report.bad} problem(s)")
    return int(report.bad > 0)


if __name__ == "__main__":
    run_main(main)
