"""MLR whose encoders all stand behind MaDi's Masker: a combination of this project's own."""

from ..agents.sac import SAC
from ..core.run.config import Config
from . import madi, mlr


def build(config: Config, agent: SAC) -> None:
    """The Masker learns from the plain critic's loss; MLR trains the encoder behind it."""
    if config.masker.enabled:
        agent.look_through(madi.make_masker(config, agent))
    mlr.build(config, agent)
