"""Peak memory of a training process: agent, full-size replay, three updates. Arguments as for the training.

.venv/bin/python scripts/memory.py task=cheetah_run env_steps=400000
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from DMControl.core import machine  # noqa: E402
from DMControl.core.errors import run_main  # noqa: E402
from DMControl.renderer import choose_renderer  # noqa: E402


def peak() -> float:
    """GB (10^9 bytes) that this process held at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def main(arguments: list[str]) -> int:
    choose_renderer()
    from DMControl.env import TRAIN, Env
    from DMControl.methods import make_agent
    from DMControl.replay import Replay
    from DMControl.train import read_config

    machine.keep_memory()
    config = read_config(arguments or ["task=cheetah_run", "preset=paper", "env_steps=400000"])
    device = machine.choose_device(config.device)
    machine.set_threads(config.threads)
    image = config.image
    env = Env(config.task, config.action_repeat, image.size, image.shadows, 0, TRAIN)
    agent = make_agent(config, env.action_dim, machine.choose_precision(config.precision, device))
    capacity = min(config.replay.capacity, -(-config.env_steps // config.action_repeat))
    replay = Replay(capacity, env.episode_length, image.stack, image.size, env.action_dim, device, agent.generator)
    print(f"{replay}; process {psutil.Process().memory_info().rss / 1e9:.2f} GB")
    frame, action = env.reset(), np.zeros(env.action_dim, np.float32)
    for _ in range(4):
        replay.start(frame)
        for t in range(env.episode_length):
            replay.add(action, 0.0, False, t == env.episode_length - 1, frame)
    for _ in range(3):
        agent.update(replay)
    print(f"peak after three updates: {peak():.2f} GB")
    return 0


if __name__ == "__main__":
    run_main(main)
