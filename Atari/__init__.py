"""Rainbow + MLR on Atari-100k."""

import os
import sys
from typing import TYPE_CHECKING

from .core.errors import leave_on_interrupt

if TYPE_CHECKING:
    from .player import Player

# OpenMP reads this when torch is loaded. Waiting threads then spin for a moment and sleep, which makes updates many times faster
# when another process shares the machine, and costs nothing measurable when none does. A value set by the user wins.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

if sys.argv[:1] == ["-m"]:  # python -m loads libraries next
    leave_on_interrupt()


def load_agent(run: str, device: str = "auto") -> "Player":
    """A trained policy, from the folder of a run or of an export: agent.reset(), then agent.act(image) for each image of an episode."""
    from .player import load  # loads torch and the simulator

    return load(run, device)
