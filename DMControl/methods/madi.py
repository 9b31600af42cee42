"""MaDi: SVEA behind a Masker (core/method/masker.py), which only the critic's loss trains."""

from ..agents.sac import SAC
from ..core.method.masker import Masker
from ..core.method.optim import Adam
from ..core.run.config import Config
from . import svea


def make_masker(config: Config, agent: SAC) -> Masker:
    m = config.masker
    masker = Masker(m.depth, m.width, m.type, m.threshold, agent.handles.precision).to(agent.device)
    masker.optimizer = Adam(masker.parameters(), m.lr)
    return masker


def build(config: Config, agent: SAC) -> None:
    """SVEA behind a Masker."""
    agent.set_pixel_path(make_masker(config, agent))
    svea.build(config, agent)
