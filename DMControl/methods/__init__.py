"""The methods by name. A method is the SAC of sac.py, plus an auxiliary objective, a critic's loss of its own, or both."""

from collections.abc import Callable

import torch

from ..agents.sac import SAC
from ..core.errors import UserError, nearest
from ..core.machine import Precision
from ..core.run.config import Config
from . import drq, madi, mlr, rad, sac, sgqn, soda, svea

OBJECTIVES: dict[str, Callable] = {"mlr": mlr.build, "mlr_madi": mlr.build}
CRITICS: dict[str, Callable] = {  # what stands in neither table is the plain SAC
    "sac": sac.build,
    "drq": drq.build,
    "rad": rad.build,
    "svea": svea.build,
    "soda": soda.build,
    "sgqn": sgqn.build,
    "madi": madi.build,
    "mlr_madi": madi.build_in_front_of_mlr,
}
METHODS = {"baseline", *OBJECTIVES, *CRITICS}


def make_agent(config: Config, action_dim: int, precision: Precision) -> SAC:
    """The agent with all its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    generator = torch.Generator(precision.device)
    generator.manual_seed(config.seed)
    agent = SAC(config, action_dim, precision, generator)
    if config.method not in METHODS:
        raise UserError(f"method={config.method} has a YAML file but no entry in DMControl/methods.py: {nearest(config.method, METHODS)}")
    if config.method in CRITICS:
        agent.critic_loss = CRITICS[config.method](config, agent)
    if config.method in OBJECTIVES:
        agent.attach(*OBJECTIVES[config.method](config, agent))
    return agent
