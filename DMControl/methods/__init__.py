"""The methods by name. Each `build` adds its method to the SAC of agents/sac.py."""

from collections.abc import Callable

import torch

from ..agents.sac import SAC
from ..core import machine
from ..core.errors import UserError, nearest
from ..core.machine import Precision
from ..core.run.config import Config
from . import baseline, drq, madi, mlr, mlr_madi, rad, sac, sgqn, soda, svea

METHODS: dict[str, Callable[[Config, SAC], None]] = {
    "baseline": baseline.build,
    "mlr": mlr.build,
    "mlr_madi": mlr_madi.build,
    "sac": sac.build,
    "drq": drq.build,
    "rad": rad.build,
    "svea": svea.build,
    "soda": soda.build,
    "sgqn": sgqn.build,
    "madi": madi.build,
}


def make_agent(config: Config, action_dim: int, precision: Precision) -> SAC:
    """Build the agent, with weights drawn from the seed."""
    if config.method not in METHODS:
        raise UserError(f"method={config.method} has a YAML file but no entry in DMControl/methods: {nearest(config.method, METHODS)}")
    torch.manual_seed(config.seed)
    generator = machine.make_generator(precision.device, config.seed)
    agent = SAC(config, action_dim, precision, generator)
    METHODS[config.method](config, agent)
    return agent
