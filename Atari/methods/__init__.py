"""The methods by name. A method is the Rainbow of rainbow.py, plus what its builder attaches."""

from collections.abc import Callable

import torch

from ..agents.rainbow import Rainbow, Settings
from ..core.errors import UserError, nearest
from ..core.machine import Precision
from ..core.method.augment import Augmentation
from ..core.method.encoder import Trunk
from ..core.method.masks import Masks
from ..core.run.config import Config
from . import mlr


def attach_mlr(config: Config, agent: Rainbow) -> None:
    m, quirks = config.mlr, config.quirks
    masks = Masks(m.window, config.env.size, m.mask.patch, m.mask.block, m.mask.ratio, m.mask.strategy, count_kept=quirks.count_kept)
    objective = mlr.build(
        agent,
        masks=masks,
        augment=agent.augment,
        depth=m.decoder.depth,
        width=m.decoder.width,
        heads=m.decoder.heads,
        mlp_ratio=m.decoder.mlp_ratio,
        final_norm=not quirks.no_final_norm,
        tau=m.tau if m.momentum else 1.0,
        action_tokens=m.action_tokens,
        one_mask=quirks.one_mask_per_batch,
        masked_input_0_255=quirks.masked_input_0_255,
        pixel_targets=m.target == "pixels",
        chunk=m.chunk or None,
    )
    own = [objective.decoder] + ([] if quirks.unclipped_heads else [objective.prediction, *filter(None, [objective.embed_action])])
    agent.attach(objective, m.weight, clipped={"decoder": [p for module in own for p in module.parameters()]})


OBJECTIVES: dict[str, Callable[[Config, Rainbow], None] | None] = {"baseline": None, "mlr": attach_mlr}


def make_agent(config: Config, n_actions: int, precision: Precision) -> Rainbow:
    """The agent with all its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    generator = torch.Generator(precision.device)
    generator.manual_seed(config.seed)
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
        beta_steps=(r.random_steps, config.steps),
        lagged_targets=config.quirks.targets_lag if "quirks" in config else True,
    )
    agent = Rainbow(
        settings,
        n_actions=n_actions,
        trunk=Trunk(env.stack, env.size, encoder.filters, encoder.kernels, encoder.strides, precision),
        augment=Augmentation(config.augment.order, env.size, env.size, config.augment.pad, config.augment.intensity),
        generator=generator,
        device=precision.device,
        compile=config.compile,
    )
    if config.method not in OBJECTIVES:
        raise UserError(f"method={config.method} has a YAML file but no entry in Atari/methods.py: {nearest(config.method, OBJECTIVES)}")
    build = OBJECTIVES[config.method]
    if build is not None:
        build(config, agent)
    return agent


def window_of(config: Config) -> int:
    """Consecutive observations of a drawn window; the Baseline draws the same ones, unseen, so that both sample alike."""
    return config.mlr.window if "mlr" in config else config.baseline.window
