"""The paper's Baseline: MLR's SAC without the objective."""

from ..agents.sac import SAC
from ..core.run.config import Config


def build(config: Config, agent: SAC) -> None:
    """Nothing to add."""
