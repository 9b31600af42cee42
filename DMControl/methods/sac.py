"""SAC without augmentation: images are rendered at the size of the encoder's input."""

from ..agents.sac import SAC
from ..core.run.config import Config


def build(config: Config, agent: SAC) -> None:
    """SAC is complete without it."""
