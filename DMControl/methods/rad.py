"""RAD with random crops: observation and next observation are cropped, with separate draws. Acting uses the centre crop."""

from ..agents.sac import SAC
from ..core.errors import UserError
from ..core.run.config import Config


def build(config: Config, agent: SAC) -> None:
    if "crop" not in config.augment.order or not config.augment.next_obs or config.image.size <= config.image.crop:
        raise UserError(
            "method=rad crops observations and next observations: leave augment.order=[crop] and augment.next_obs=true, "
            f"and image.size above image.crop={config.image.crop}"
        )
