"""RAD with random crops: observation and next observation are cropped, each by a draw of its own; acting reads the centre crop."""

from typing import TYPE_CHECKING

from ..agents.critic_loss import TD
from ..core.errors import UserError
from ..core.run.config import Config

if TYPE_CHECKING:
    from ..agents.sac import SAC


def build(config: Config, agent: "SAC") -> TD:
    if "crop" not in config.augment.order or not config.augment.next_obs or config.image.size <= config.image.crop:
        raise UserError(
            "method=rad crops observations and next observations: leave augment.order=[crop] and augment.next_obs=true, "
            f"and image.size above image.crop={config.image.crop}"
        )
    return TD()
