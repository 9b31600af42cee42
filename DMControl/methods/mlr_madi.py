"""MLR with MaDi's Masker in front of all encoders: a combination made for this project."""

from ..agents.sac import SAC
from ..core.run.config import Config
from . import madi, mlr


def build(config: Config, agent: SAC) -> None:
    """SAC's critic loss trains the Masker. MLR trains the encoder, but not the Masker."""
    if config.masker.enabled:
        agent.set_pixel_path(madi.make_masker(config, agent))
    mlr.build(config, agent)
