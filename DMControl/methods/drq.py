"""DrQ with K = M = 1: observation and next observation shifted by up to `augment.pad` pixels, each by a draw of its own."""

from typing import TYPE_CHECKING

from ..agents.critic_loss import TD
from ..core.errors import UserError
from ..core.run.config import Config

if TYPE_CHECKING:
    from ..agents.sac import SAC


def build(config: Config, agent: "SAC") -> TD:
    if "shift" not in config.augment.order or not config.augment.next_obs:
        raise UserError("method=drq shifts observations and next observations: leave augment.order=[shift] and augment.next_obs=true")
    return TD()
