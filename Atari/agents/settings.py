"""The settings of Rainbow."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    batch_size: int
    lr: float
    adam_eps: float
    clip: float
    discount: float
    n_step: int
    atoms: int
    v_min: float
    v_max: float
    hidden: int
    noisy_std: float
    beta: tuple[float, float]  # exponent of the importance weights, at the first update and at the last step
    learning_steps: tuple[int, int]  # agent steps before the first update, and of the whole run
    eval_epsilon: float = 0.001  # in evaluations
    lagged_targets: bool = True  # move the objective's targets before the optimiser's step, one update behind
    # the rest is as in configs/atari/config.yaml
    scale_features: bool = True
    init: str = "torch"
    centre: bool = False
    head: str = "streams"
    scale_head_gradient: bool = True
    value: str = "distribution"
    noisy: bool = True
    target_noise: str = "last"
    double: bool = True
    next_views: int = 2
    target_every: int = 0
    priority: str = "kl"
    epsilon: tuple[float, float] = (1.0, 0.0)
    epsilon_decay: int = 0
