"""Look at the machine and say what would stop a run. Exit code 1 if something would."""

from __future__ import annotations  # so that torch may be what is missing

import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from Atari.core.errors import UserError as AtariError  # noqa: E402
from DMControl.core.errors import UserError, run_main  # noqa: E402
from DMControl.renderer import BACKENDS, PACKAGES, choose_renderer, probe  # noqa: E402

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
    """What a run takes, in bytes."""

    label: str
    device: torch.device
    precision: machine.Precision
    runs: str
    replay: int
    parameters: int
    activations: int


def dmcontrol_need(arguments: list[str]) -> Need:
    choose_renderer()
    from DMControl.core import machine
    from DMControl.env import TRAIN, Env
    from DMControl.methods import make_agent
    from DMControl.replay import Replay
    from DMControl.train import read_config

    config = read_config(arguments)
    device = machine.choose_device(config.device)
    precision = machine.choose_precision(config.precision, device)
    env = Env(config.task, config.action_repeat, config.image.size, config.image.shadows, 0, TRAIN)
    agent = make_agent(config, env.action_dim, precision)
    count = sum(p.numel() for m in (agent.critic, agent.actor, agent.target) for p in m.parameters())
    capacity = min(config.replay.capacity, -(-config.env_steps // config.action_repeat))
    # images in flight: forward and backward keep about three times the first two feature maps
    side = (config.image.crop - 3) // config.encoder.strides[0] + 1
    windows = config.mlr.batch_size * config.mlr.window if "mlr" in config else 0
    images = min(agent.chunk, max(config.sac.batch_size, windows))
    flying = images * side**2 * config.encoder.filters * precision.dtype.itemsize * (len(config.encoder.strides) + 3)
    label = f"{config.task}, {config.method}, preset {config.preset}"
    return Need(label, device, precision, config.runs, Replay.bytes_needed(capacity, config.image.size), 5 * count, flying)


def atari_need(arguments: list[str]) -> Need:
    from Atari.core import machine
    from Atari.env import TRAIN
    from Atari.evaluate import make_env
    from Atari.methods import make_agent
    from Atari.train import read_config

    config = read_config(arguments)
    device = machine.choose_device(config.device)
    precision = machine.choose_precision(config.precision, device)
    agent = make_agent(config, make_env(config, 0, TRAIN).n_actions, precision)
    trained = agent.optimizer.parameters
    images = config.rainbow.batch_size * (config.mlr.window * 2 if "mlr" in config else 3)
    # frames as floats, their feature maps, and the tokens of the decoder with what its blocks keep
    flying = images * 4 * (6 * config.env.stack * config.env.size**2 + 20 * agent.network.trunk.features)
    capacity = min(config.replay.capacity, config.steps)
    label = f"{config.game}, {config.method}, preset {config.preset}"
    return Need(label, device, precision, config.runs, capacity * config.env.size**2, 4 * sum(p.numel() for p in trained), flying)


def check_room(report: Report, need: Need) -> None:
    import torch

    from DMControl.core import machine

    total = need.replay + 4 * need.parameters + need.activations + machine.GIB // 2  # half a GB for the libraries
    saves = need.replay + 2 * 4 * need.parameters  # the two newest saves
    free, disk = machine.free_memory(need.device), machine.free_disk(Path(need.runs))
    where = "GPU memory" if need.device.type == "cuda" else "RAM"
    report.say(
        total < free,
        f"{need.label} needs about {machine.gigabytes(total)} of {where}, {machine.gigabytes(need.replay)} of it for the replay; "
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
