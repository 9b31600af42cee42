"""Look at the machine and say what would stop a run. Exit code 1 if something would."""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from Atari.core.errors import UserError as AtariError
from DMControl.core.errors import UserError, run_main
from DMControl.renderer import BACKENDS, PACKAGES, choose_renderer, find
from scripts.trees import ATARI, DMCONTROL, Tree

ROOT = Path(__file__).resolve().parents[2]


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
        _, reason = find(backend)
        if reason:
            package = PACKAGES.get(backend, "a backend MuJoCo knows: egl, osmesa or glfw")
            report.say(None, f"renderer {backend} does not work ({reason}); it needs {package}")
        else:
            works.append(backend)
            report.say(True, f"renderer {backend} renders a frame")
    if not works:
        report.say(False, "no renderer works: apt-get install libosmesa6" + (f", or unset MUJOCO_GL={chosen}" if chosen else ""))


def check_room(report: Report, tree: Tree, arguments: list[str]) -> None:
    """Whether a run with these settings would start."""
    import torch  # not at the top: check_versions reports it if it is missing

    config, machine, trainer = tree.read_config(arguments), tree.load("core.machine"), tree.load("core.run.trainer")
    device = machine.choose_device(config.device)
    precision = machine.choose_precision(config.precision, device)
    if device.type == "cpu":
        compiled = tree.load("core.method.native").compiled() is not None
        report.say(
            compiled or None, "crops are compiled" if compiled else "no C compiler or no AVX2: crops take longer; apt-get install gcc"
        )
    report.say(None, f"device {device}: {machine.describe(device)}; {str(precision.dtype)[6:]}; torch {torch.__version__}")
    memory = tree.memory(config, tree.make_env(config, 0, clean=True), precision)
    machine.require(device, memory)
    trainer.require_disk(config.runs, tree.run_path(config, config.runs), memory["replay"], memory["networks"])
    total, replay = machine.gigabytes(sum(memory.values())), machine.gigabytes(memory["replay"])
    run = f"{config[tree.task]}, {config.method}, preset {config.preset}"
    report.say(True, f"{run} fits: its tensors take about {total}, {replay} of it for the replay")


def main(arguments: list[str]) -> int:
    report, tree = Report(), ATARI if any(a.startswith("game=") for a in arguments) else DMCONTROL
    check_versions(report)
    if tree is DMCONTROL:
        check_renderer(report)
    if not report.bad:
        try:
            if tree is DMCONTROL:
                choose_renderer()
            check_room(report, tree, arguments)
        except (UserError, AtariError) as error:
            report.say(False, str(error))
    print("all is well" if not report.bad else f"{report.bad} problem(s)")
    return int(report.bad > 0)


if __name__ == "__main__":
    run_main(main)
