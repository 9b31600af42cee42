"""MLR with MaDi's Masker in front of all encoders: a combination made for this project."""

from ..agents.rainbow import Rainbow
from ..core.run.config import Config
from . import madi, mlr


def build(config: Config, agent: Rainbow) -> None:
    """The distributional loss trains the Masker. MLR trains the encoder, but not the Masker."""
    madi.build(config, agent)
    mlr.build(config, agent)
