"""RAD with random crops: observation and next observation are cropped, with separate draws. Acting uses the centre crop."""

from ..agents.sac import SAC
from ..core.run.config import Config


def build(config: Config, agent: SAC) -> None:
    """SAC itself augments, as augment.order says."""
