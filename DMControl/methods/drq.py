"""DrQ with K = M = 1: observation and next observation shifted by up to `augment.pad` pixels, drawn separately."""

from ..agents.sac import SAC
from ..core.errors import UserError
from ..core.run.config import Config


def build(config: Config, agent: SAC) -> None:
    if "shift" not in config.augment.order or not config.augment.next_obs:
        raise UserError("method=drq shifts observations and next observations: leave augment.order=[shift] and augment.next_obs=true")
