"""The paper's Baseline: MLR's Rainbow without the objective."""

from ..agents.rainbow import Rainbow
from ..core.run.config import Config


def build(config: Config, agent: Rainbow) -> None:
    """Nothing to add."""
