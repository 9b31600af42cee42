"""SAC without augmentation: images are rendered at the size of the encoder's input."""

from ..agents.sac import SAC
from ..core.errors import UserError
from ..core.run.config import Config


def build(config: Config, agent: SAC) -> None:
    if config.augment.order:
        raise UserError("method=sac augments nothing: with augment.order=[shift] it is method=drq, with [crop] method=rad")
