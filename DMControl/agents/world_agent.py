"""What the agents with a world model share: saves, random streams, and pictures of what the model expects."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from ..core import machine
from ..core.errors import UserError
from ..core.machine import Precision
from ..core.method.frames import Frames
from ..core.method.objective import Metrics
from ..core.method.optim import Adam
from ..core.run.agent import Agent, Update
from ..core.run.config import Config
from ..core.run.recorder import Recorder
from ..replay import Replay
from .rssm import SIDE

CONTEXT = 5  # observations before a prediction without pictures
DREAMS = 16  # runs of observations for `diagnose`
AHEAD = 45  # observations to predict, if an episode is long enough
SHOWN = 10  # observations of a run in a picture


class WorldAgent(Agent, ABC):
    """Base of an agent that learns a model of its world."""

    period = 1
    diagnostics = ("model/reconstruction_error", "model/prediction_error", "model/still_error")

    def __init__(self, config: Config, action_dim: int, precision: Precision, generator: torch.Generator) -> None:
        if (config.image.size, config.image.stack) != (SIDE, 1):
            raise UserError(f"method={config.method} sees one frame of {SIDE}x{SIDE} pixels: leave image.size={SIDE} and image.stack=1")
        self.action_dim, self.precision, self.device, self.generator = action_dim, precision, precision.device, generator
        self.seed = config.seed
        self.judging = machine.make_generator(self.device, self.seed)  # of evaluations, which must not advance the stream of the training
        self.recorder = Recorder(self.device, [generator], config.compile)
        self.updates = 0
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Adam] = {}

    def begin(self, n: int) -> Tensor:
        self.judging.manual_seed(self.seed)  # each evaluation episode draws the same, also after a resume
        return torch.zeros(n, self.memory, device=self.device)

    @property
    @abstractmethod
    def memory(self) -> int:
        """Numbers of the acting state. An episode begins with 0."""

    @abstractmethod
    def update_parts(self, replay: Replay) -> Update:
        """One update."""

    @abstractmethod
    def dream(self, frames: Tensor, action: Tensor, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """frames (T, B, 3, H, W) uint8, action (T, B, A): action t led to frame t. Returns uint8 pictures like the frames.

        First the model's reconstructions of all frames; then of the first `context`, followed by predictions without pictures.
        """

    def update(self, replay: Replay, step: int) -> Update:
        metrics, drawn = self.recorder(self.phase, lambda: self.update_parts(replay))
        self.updates += 1
        return Update(metrics, drawn)

    @property
    def phase(self) -> int:
        """Updates of one phase run the same operations."""
        return int(self.updates >= self.model_updates)

    def random_action(self) -> np.ndarray:
        drawn = torch.rand(self.action_dim, generator=self.generator, device=self.device)
        return (drawn * 2 - 1).cpu().numpy()

    @torch.no_grad()
    def diagnose(self, replay: Replay, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Errors: of reconstructions and predictions, and of the last frame before the predictions if it takes their place."""
        length = CONTEXT + AHEAD if replay.holds_chunk(CONTEXT + AHEAD) else self.window
        if not replay.holds_chunk(length):
            return {}, {}
        generator = torch.Generator(self.device).manual_seed(seed)  # does not advance the random stream of the run
        chunk = replay.sample_chunks(DREAMS, length, generator)
        frames = chunk.obs.whole().unflatten(0, (length, DREAMS))
        context = min(CONTEXT, length - 1)
        reconstructed, predicted = self.dream(frames, chunk.action, context, generator)
        still = frames[context - 1].expand_as(frames)
        numbers = {
            "model/reconstruction_error": grey_levels(reconstructed, frames),
            "model/prediction_error": grey_levels(predicted[context:], frames[context:]),
            "model/still_error": grey_levels(still[context:], frames[context:]),
        }
        steps = torch.linspace(0, length - 1, min(SHOWN, length), device=self.device).round().long()
        pictures = {"frames": frames, "reconstructions": reconstructed, "predictions": predicted}
        return numbers, {name: picture[steps, 0] for name, picture in pictures.items()}

    def seen(self, obs: Frames, elsewhere: bool = False) -> dict[str, Tensor]:
        return {}

    @property
    def transferable(self) -> dict[str, nn.Module]:
        return {name: module for name, module in self.modules.items() if name != "target"}

    def reset_targets(self) -> None:
        return  # most have no target network

    def _normal(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, generator=generator or self.generator, device=self.device)

    def take_steps(self, *names: str) -> Metrics:
        """A step of each optimiser, or of those named; returns the gradient norms before the clip."""
        due = {name: self.optimizers[name] for name in names or self.optimizers}
        norms = {name: optimizer.norm() for name, optimizer in due.items() if optimizer.clip is None}
        for name, optimizer in due.items():
            clipped = optimizer.step()
            norms[name] = norms.get(name, clipped)
        return {f"grad/{name}": norm for name, norm in norms.items()}


def parameters(*modules: nn.Module) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters()]


def grey_levels(one: Tensor, other: Tensor) -> float:
    """Root mean square difference of uint8 pictures."""
    return (one.float() - other.float()).square().mean().sqrt().item()
