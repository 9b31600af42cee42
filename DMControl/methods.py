"""The methods by name. A method is the SAC of sac.py, plus an auxiliary objective, a critic's loss of its own, or both."""

from collections.abc import Callable

import torch

from . import mlr
from .core.config import Config
from .core.errors import UserError, nearest
from .core.machine import Precision
from .sac import SAC

OBJECTIVES: dict[str, Callable | None] = {"baseline": None, "mlr": mlr.build}
CRITICS: dict[str, Callable] = {}  # methods that are not named here have the plain squared error


def make_agent(config: Config, action_dim: int, precision: Precision) -> SAC:
    """The agent with all its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    generator = torch.Generator(precision.device)
    generator.manual_seed(config.seed)
    agent = SAC(config, action_dim, precision, generator)
    if config.method not in OBJECTIVES:
        raise UserError(
            f"method={config.method} has a YAML file but no entry in DMControl/methods.py: {nearest(config.method, OBJECTIVES)}"
        )
    if config.method in CRITICS:
        agent.critic_loss = CRITICS[config.method](config, agent)
    build = OBJECTIVES[config.method]
    if build is not None:
        agent.attach(*build(config, agent))
    return agent
