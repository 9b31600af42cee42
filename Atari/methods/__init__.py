"""The methods by name. Each `build` adds its method to the Rainbow of agents/rainbow.py."""

from collections.abc import Callable

import torch

from ..agents.rainbow import Rainbow
from ..agents.settings import Settings
from ..core import machine
from ..core.errors import UserError, nearest
from ..core.machine import Precision
from ..core.method.augment import Augmentation
from ..core.method.encoder import Trunk
from ..core.run.agent import Agent
from ..core.run.config import Config
from . import curl, madi, mlr, mlr_madi, playvirtual, spr

Maker = Callable[[Config, int, Precision, torch.Generator], Agent]  # settings, number of actions, precision, random stream -> agent


def make_rainbow(config: Config, n_actions: int, precision: Precision, generator: torch.Generator) -> Rainbow:
    r, env, encoder, augment, quirks = config.rainbow, config.env, config.encoder, config.augment, config.quirks
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
        learning_steps=(config.train.random_steps, config.steps),
        eval_epsilon=config.eval.epsilon,
        lagged_targets=quirks.targets_lag if "targets_lag" in quirks else True,
        scale_features=encoder.scaled,
        init=encoder.init,
        centre=encoder.centre,
        head=r.head,
        scale_head_gradient=r.scale_head_gradient,
        value=r.value,
        noisy=r.noisy,
        target_noise=r.target_noise,
        double=r.double,
        next_views=augment.next_views,
        target_every=r.target_every,
        priority=config.replay.priority,
        epsilon=tuple(config.train.epsilon),
        epsilon_decay=config.train.epsilon_decay,
    )
    return Rainbow(
        settings,
        n_actions=n_actions,
        trunk=Trunk(
            env.stack, env.size, encoder.filters, encoder.kernels, encoder.strides, precision,
            same=encoder.padding == "same", measured=encoder.centre,
        ),
        augment=Augmentation(
            augment.order, env.size, env.size, augment.pad, augment.intensity,
            last_shift=not quirks.short_shift, together=quirks.one_shift_per_batch, dtype=precision.dtype,
        ),
        generator=generator,
        device=precision.device,
        compile=config.compile,
    )  # fmt: skip


def on_rainbow(build: Callable[[Config, Rainbow], None] | None = None) -> Maker:
    """A method that adds to Rainbow, or only has other settings. The row of an agent of its own is that agent's class."""

    def make(config: Config, n_actions: int, precision: Precision, generator: torch.Generator) -> Rainbow:
        agent = make_rainbow(config, n_actions, precision, generator)
        if build is not None:
            build(config, agent)
        return agent

    return make


METHODS: dict[str, Maker] = {
    "baseline": on_rainbow(),
    "mlr": on_rainbow(mlr.build),
    "curl": on_rainbow(curl.build),
    "spr": on_rainbow(spr.build),
    "playvirtual": on_rainbow(playvirtual.build),
    "madi": on_rainbow(madi.build),
    "mlr_madi": on_rainbow(mlr_madi.build),
    "der": on_rainbow(),
    "otr": on_rainbow(),
    "drq": on_rainbow(),
    "drq_eps": on_rainbow(),
}


def make_agent(config: Config, n_actions: int, precision: Precision) -> Agent:
    """Build the agent, with weights drawn from the seed."""
    if config.method not in METHODS:
        raise UserError(f"method={config.method} has a YAML file but no entry in Atari/methods: {nearest(config.method, METHODS)}")
    torch.manual_seed(config.seed)
    return METHODS[config.method](config, n_actions, precision, machine.make_generator(precision.device, config.seed))
