"""SAC without augmentation: images rendered at the size that the encoder reads."""

from typing import TYPE_CHECKING

from ..core.config import Config
from ..core.errors import UserError
from .td import TD

if TYPE_CHECKING:
    from ..sac import SAC


def build(config: Config, agent: "SAC") -> TD:
    if config.augment.order:
        raise UserError("method=sac augments nothing: with augment.order=[shift] it is method=drq, with [crop] method=rad")
    return TD()
