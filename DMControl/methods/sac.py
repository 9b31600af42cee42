"""SAC without augmentation: images rendered at the size that the encoder reads."""

from typing import TYPE_CHECKING

from ..agents.critic_loss import TD
from ..core.errors import UserError
from ..core.run.config import Config

if TYPE_CHECKING:
    from ..agents.sac import SAC


def build(config: Config, agent: "SAC") -> TD:
    if config.augment.order:
        raise UserError("method=sac augments nothing: with augment.order=[shift] it is method=drq, with [crop] method=rad")
    return TD()
