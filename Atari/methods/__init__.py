"""The methods by name. Each `build` adds its method to the Rainbow of agents/rainbow.py."""

from collections.abc import Callable

import torch

from ..agents.rainbow import Rainbow, Settings
from ..core import machine
from ..core.errors import UserError, nearest
from ..core.machine import Precision
from ..core.method.augment import Augmentation
from ..core.method.encoder import Trunk
from ..core.run.agent import Agent
from ..core.run.config import Config
from . import baseline, mlr, playvirtual, spr

Maker = Callable[[Config, int, Precision, torch.Generator], Agent]  # settings, number of actions, precision, random stream -> agent


def make_rainbow(config: Config, n_actions: int, precision: Precision, generator: torch.Generator) -> Rainbow:
    r, env, encoder = config.rainbow, config.env, config.encoder
    settings = Settings(
        batch_size=r.batch_size,
        lr=r.lr,
        adam_eps=r.adam_eps,
        clip=r.clip,
        discount=r.discount,
        n_step=r.n_step,
        atoms=r.atoms,
        v_min=r.v_min,
        v_max=r.v_max,
        hidden=r.hidden,
        noisy_std=r.noisy_std,
        beta=tuple(config.replay.beta),
        beta_steps=(config.train.random_steps, config.steps),
        eval_epsilon=config.eval.epsilon,
        lagged_targets=config.quirks.targets_lag if "targets_lag" in config.quirks else True,
    )
    return Rainbow(
        settings,
        n_actions=n_actions,
        trunk=Trunk(env.stack, env.size, encoder.filters, encoder.kernels, encoder.strides, precision),
        augment=Augmentation(config.augment.order, env.size, env.size, config.augment.pad, config.augment.intensity, dtype=precision.dtype),
        generator=generator,
        device=precision.device,
        compile=config.compile,
    )


def on_rainbow(build: Callable[[Config, Rainbow], None]) -> Maker:
    """A method that adds to Rainbow. The row of an agent of its own is that agent's class."""

    def make(config: Config, n_actions: int, precision: Precision, generator: torch.Generator) -> Rainbow:
        agent = make_rainbow(config, n_actions, precision, generator)
        build(config, agent)
        return agent

    return make


METHODS: dict[str, Maker] = {
    "baseline": on_rainbow(baseline.build),
    "mlr": on_rainbow(mlr.build),
    "spr": on_rainbow(spr.build),
    "playvirtual": on_rainbow(playvirtual.build),
}


def make_agent(config: Config, n_actions: int, precision: Precision) -> Agent:
    """Build the agent, with weights drawn from the seed."""
    if config.method not in METHODS:
        raise UserError(f"method={config.method} has a YAML file but no entry in Atari/methods: {nearest(config.method, METHODS)}")
    torch.manual_seed(config.seed)
    return METHODS[config.method](config, n_actions, precision, machine.make_generator(precision.device, config.seed))
