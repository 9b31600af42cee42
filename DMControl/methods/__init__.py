"""The methods by name. Each `build` adds its method to the SAC of agents/sac.py; the others are agents of their own."""

from collections.abc import Callable

import torch

from ..agents.dreamer import Dreamer
from ..agents.planet import PlaNet
from ..agents.sac import SAC
from ..agents.slac import SLAC
from ..core import machine
from ..core.errors import UserError, nearest
from ..core.machine import Precision
from ..core.run.agent import Agent
from ..core.run.config import Config
from . import curl, drq, madi, mlr, mlr_madi, playvirtual, sac_ae, sgqn, soda, spr, svea

Maker = Callable[[Config, int, Precision, torch.Generator], Agent]  # settings, action size, precision, random stream -> agent


def on_sac(build: Callable[[Config, SAC], None] | None = None) -> Maker:
    """A method that adds to SAC, or only has other settings. The row of an agent of its own is that agent's class."""

    def make(config: Config, action_dim: int, precision: Precision, generator: torch.Generator) -> SAC:
        agent = SAC(config, action_dim, precision, generator)
        if build is not None:
            build(config, agent)
        return agent

    return make


METHODS: dict[str, Maker] = {
    "baseline": on_sac(),
    "mlr": on_sac(mlr.build),
    "mlr_madi": on_sac(mlr_madi.build),
    "curl": on_sac(curl.build),
    "sac_ae": on_sac(sac_ae.build),
    "spr": on_sac(spr.build),
    "playvirtual": on_sac(playvirtual.build),
    "sac": on_sac(),
    "drq": on_sac(drq.build),
    "rad": on_sac(),
    "svea": on_sac(svea.build),
    "soda": on_sac(soda.build),
    "sgqn": on_sac(sgqn.build),
    "madi": on_sac(madi.build),
    "dreamer": Dreamer,
    "planet": PlaNet,
    "slac": SLAC,
}


def make_agent(config: Config, action_dim: int, precision: Precision) -> Agent:
    """Build the agent, with weights drawn from the seed."""
    if config.method not in METHODS:
        raise UserError(f"method={config.method} has a YAML file but no entry in DMControl/methods: {nearest(config.method, METHODS)}")
    torch.manual_seed(config.seed)
    return METHODS[config.method](config, action_dim, precision, machine.make_generator(precision.device, config.seed))
