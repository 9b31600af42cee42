"""Look at the machine and say what would stop a run. Exit code 1 if something would."""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from DMControl.core import machine  # noqa: E402
from DMControl.core.errors import UserError, run_main  # noqa: E402
from DMControl.renderer import BACKENDS, PACKAGES, choose_renderer, probe  # noqa: E402


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


def check_room(report: Report, arguments: list[str]) -> None:
    choose_renderer()
    import torch

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
    replay = Replay.bytes_needed(capacity, config.image.size)
    # images in flight: forward and backward keep about three times the first two feature maps
    side = (config.image.crop - 3) // config.encoder.strides[0] + 1
    images = min(
        agent.chunk, max(config.sac.batch_size, config.get("mlr", {}).get("batch_size", 0) * config.get("mlr", {}).get("window", 0))
    )
    passing = images * side**2 * config.encoder.filters * precision.dtype.itemsize * (len(config.encoder.strides) + 3)
    need = replay + 20 * count + passing + (machine.GIB // 2)
    label = f"{config.task}, preset {config.preset}"
    free, disk = machine.free_memory(device), machine.free_disk(Path(config.runs))
    where = "GPU memory" if device.type == "cuda" else "RAM"
    report.say(
        need < free,
        f"{label} needs about {machine.gigabytes(need)} of {where}, {machine.gigabytes(replay)} of it for the replay; "
        f"{machine.gigabytes(free)} are free",
    )
    saves = replay + 60 * count
    report.say(saves < disk, f"saves need up to {machine.gigabytes(saves)} of disk; {machine.gigabytes(disk)} are free")
    report.say(None, f"device {device}: {machine.describe(device)}; {str(precision.dtype)[6:]}; torch {torch.__version__}")


def main(arguments: list[str]) -> int:
    report = Report()
    check_versions(report)
    check_renderer(report)
    if not report.bad:
        try:
            check_room(report, arguments)
        except UserError as error:
            report.say(False, str(error))
    print("all is well" if not report.bad else f"{report.bad} problem(s)")
    return int(report.bad > 0)


if __name__ == "__main__":
    run_main(main)
