"""Data-efficient Rainbow: C51, dueling, double, noisy nets, n steps, prioritised. Without an objective it is the paper's Baseline.

DER, OTR and DrQ are the same agent with other settings: each part can be exchanged or left out.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.method.augment import Augmentation
from ..core.method.encoder import Trunk
from ..core.method.frames import Frames
from ..core.method.objective import Handles, Metrics, Objective, add_gradient
from ..core.method.optim import Adam
from ..core.method.pixel_path import PixelPath
from ..core.run.agent import Agent, Update
from ..core.run.recorder import Recorder
from ..replay import Batch, Replay
from .networks import Dueling, make_network
from .settings import Settings
from .values import chosen
from .views import Views

DIAGNOSED = 16  # sequences for `diagnose`


@dataclass(frozen=True)
class RainbowHandles(Handles):
    """The encoder consists of the convolutions and the scaling of their features to [0, 1]."""

    head: Dueling  # published objectives use its first layers as projection


class Rainbow(Agent):
    """The agent."""

    period = 1  # every update has the same parts

    def __init__(
        self,
        settings: Settings,
        *,
        n_actions: int,
        trunk: Trunk,
        augment: Augmentation,
        generator: torch.Generator,
        device: torch.device,
        compile: bool = False,
    ) -> None:
        self.settings, self.n_actions, self.augment = settings, n_actions, augment
        self.device, self.generator = device, generator
        self.dice = torch.Generator()  # random actions, drawn on the host, where they are needed
        self.dice.manual_seed(generator.initial_seed())
        self.network = make_network(settings, trunk, n_actions, device)
        self.network.head.resample(generator)
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.value = self.network.value
        self.pixels, self.views = PixelPath(), Views()
        self.objective: Objective | None = None
        self.objective_weight = 1.0
        self.clipped: dict[str, list[nn.Parameter]] = {"network": list(self.network.parameters())}
        self.optimizer = Adam(self.network.parameters(), settings.lr, eps=settings.adam_eps)
        self.objective_optimizer: Adam | None = None
        self.exponent = torch.zeros((), dtype=torch.float64, device=device)  # beta, on the device for a recorded update
        self.recorder = Recorder(device, [generator], compile)
        self.updates = 0
        self.updated_at = 0  # agent step of the newest update

    @property
    def handles(self) -> RainbowHandles:
        """The parts of the agent that an objective may use."""
        trunk = self.network.trunk
        pixels = torch.no_grad()(lambda image: self.pixels(image))  # only the RL loss trains the pixel path
        return RainbowHandles(
            self.network.encoder, pixels, self.augment, trunk.features, self.augment.out, self.n_actions, self.device,
            self.network.head,
        )  # fmt: skip

    def attach(self, objective: Objective, weight: float = 1.0, lr: float | None = None) -> None:
        """Add an objective to the loss, with this weight. lr: of what the objective alone trains; None: the agent's."""
        if objective.batch_size is not None or objective.every != 1 or objective.after_targets:
            raise ValueError("Rainbow takes an objective's gradient in each of its updates, from its own batch")
        self.objective, self.objective_weight = objective, weight
        own = {id(p) for p in self.network.parameters()}
        groups = {name: [p for p in group if id(p) not in own] for name, group in objective.clip_groups().items()}
        self.clipped |= {name: self.clipped.get(name, []) + group for name, group in groups.items() if group}
        more, eps = [p for p in objective.trained() if id(p) not in own], self.settings.adam_eps
        if lr is None:
            self.optimizer = Adam([*self.network.parameters(), *more], self.settings.lr, eps=eps)
        else:
            self.objective_optimizer = Adam(more, lr, eps=eps)

    @property
    def window(self) -> int:
        return 0 if self.objective is None else self.objective.window

    @property
    def columns(self) -> tuple[str, ...]:
        own = ("loss/rl", "agent/q", "agent/priority", *(f"grad/{name}" for name in self.clipped), "grad/encoder", *self.pixels.columns)
        if self.objective is None:
            return own
        return (*own, *self.objective.columns) if self.objective.shares_state else (*own, *self.objective.columns, "grad/objective")

    @property
    def diagnostics(self) -> tuple[str, ...]:
        return () if self.objective is None else self.objective.diagnostics

    def begin(self, n: int) -> Tensor:
        return torch.zeros(n, 0)  # nothing is remembered

    @torch.no_grad()
    def act(
        self, obs: Frames, state: Tensor, explore: bool, generator: torch.Generator | None = None, elsewhere: bool = False
    ) -> tuple[np.ndarray, Tensor]:
        """Actions for N observations, (N,): greedy with noise in training; without noise, and seldom random, when judged."""
        n, dice, epsilon = len(obs), generator or self.dice, 0.0 if explore else self.settings.eval_epsilon
        random = torch.randint(self.n_actions, (n,), generator=dice) if epsilon > 0 else None
        if explore and self.settings.target_noise != "last":
            self.network.head.resample(self.generator)  # otherwise the noise of the newest update serves until the next one
        greedy = self.value.q(self.network(self.pixels(obs.whole(), elsewhere), noisy=explore)).argmax(1).cpu()
        if random is None:
            return greedy.numpy(), state
        return torch.where(torch.rand(n, generator=dice) < epsilon, random, greedy).numpy(), state

    def random_action(self) -> np.ndarray:
        return torch.randint(self.n_actions, (1,), generator=self.dice).numpy()[0]

    def explores(self, step: int) -> bool:
        """Whether the action after this many steps is random, with probability epsilon."""
        epsilon = self.epsilon(step)
        return epsilon >= 1 or (epsilon > 0 and float(torch.rand((), generator=self.dice)) < epsilon)

    def epsilon(self, step: int) -> float:
        """epsilon[0] until the first update, then linear to epsilon[1]."""
        (high, low), first, decay = self.settings.epsilon, self.settings.learning_steps[0], self.settings.epsilon_decay
        if step <= first:
            return high
        return max(low, high + (low - high) * (step - first) / decay) if decay else low

    def update(self, replay: Replay, step: int) -> Update:
        if self.settings.centre and not self.updates:
            self.take_centre(replay)
        self.copy_if_due(step)
        self.exponent.fill_(self.beta(step))
        if self.objective is not None:
            self.objective.at_step(step)
        metrics, drawn = self.recorder(0, lambda: self.update_parts(replay))
        self.updates += 1
        return Update(metrics, drawn)

    def update_parts(self, replay: Replay) -> Update:
        """Mean over the batch of w * (RL loss + lambda * objective), one step of Adam, new priorities, target network."""
        batch = replay.sample(self.settings.batch_size, self.exponent)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        target, shared = self.make_target(batch), list(self.network.trunk.parameters())
        encoded, objective = self.encode(batch), self.objective
        state = encoded.detach().requires_grad_()  # gathers the gradients of the losses that read it
        loss, priority, metrics = self.rl_loss(batch, target, state)
        (batch.weight * loss).mean().backward()
        if objective is not None and objective.shares_state:
            metrics |= self.objective_gradient(batch, state)
        encoded.backward(state.grad)
        metrics["grad/encoder"] = nn.utils.get_total_norm([p.grad for p in shared])
        if objective is not None and not objective.shares_state:
            before = [p.grad.clone() for p in shared]
            metrics |= self.objective_gradient(batch)
            metrics["grad/objective"] = nn.utils.get_total_norm([p.grad - b for p, b in zip(shared, before, strict=True)])
        if objective is not None:
            priority = priority + objective.priority(metrics)
        metrics |= self.take_step()
        replay.update_priorities(batch.slot, priority)
        if not self.settings.target_every:
            self.copy_to_target()
        return Update(metrics, {"batch": batch})

    def take_centre(self, replay: Replay) -> None:
        """Before the first update: the encoders' centre is the mean grey so far, unless it came with the weights of another run."""
        trunk, frames = self.network.trunk, replay.store.frames[: min(replay.frames_added, replay.slots)]
        grey = trunk.centre.clone() if trunk.centre.any() else frames.sum(dtype=torch.float64) / frames.numel()
        for module in (part for whole in self.modules.values() for part in whole.modules()):
            if isinstance(module, Trunk):
                module.centre.copy_(grey)

    def encode(self, batch: Batch) -> Tensor:
        """The latents of all views of batch.obs, (M * B, d)."""
        return self.network.encoder(self.pixels(self.views.of(self._view(batch.obs), self.generator)))

    def rl_loss(self, batch: Batch, target: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Metrics]:
        """The loss, (B,), and the priorities, (B,), of latents from `encode`."""
        if self.settings.target_noise == "shared":
            self.network.head.resample(self.generator)
        output = self.network.read(state, noisy=True)
        b = len(batch.action)
        found = [self.value.loss(view, batch.action, target) for view in output.split(b)]  # the first view is the agent's own
        loss, priority = self.views.combine([losses for losses, _ in found]), found[0][1]
        if self.settings.priority == "loss":
            priority = found[0][0].detach() + 1e-10
        q = self.value.q(output[:b].detach())
        metrics = {"loss/rl": loss.detach().mean(), "agent/q": q.amax(1).mean(), "agent/priority": priority.mean()}
        return loss, priority, metrics | self.pixels.metrics()

    @torch.no_grad()
    def make_target(self, batch: Batch) -> Tensor:
        """Draw noise. Returns the target network's answer for the best action n steps later, moved by the return: (B, atoms) or (B,)."""
        s = self.settings
        (self.target if s.target_noise == "own" else self.network).head.resample(self.generator)
        if s.target_noise == "shared" and s.noisy:  # by the target network and by the choice of the action
            torch._foreach_copy_(list(self.target.head.buffers()), list(self.network.head.buffers()))
        view = self._view(batch.next_obs)
        online = self.network(self.pixels(view), noisy=True) if s.double else None
        if s.next_views == 2:
            view = self._view(batch.next_obs)
        target = self.target(self.pixels(view), noisy=True)
        best = self.value.q(target if online is None else online).argmax(1)  # a*, (B,)
        return self.value.target(chosen(target, best), batch.return_n, batch.done_n, s.discount**s.n_step)

    def objective_gradient(self, batch: Batch, state: Tensor | None = None) -> Metrics:
        """Add the gradient of lambda * mean(w * objective). state: the latents that it shares with the RL loss."""
        weight = batch.sequence.valid * batch.weight / len(batch.weight)
        return add_gradient(self.objective, replace(batch.sequence, state=state), weight, self.generator, scale=self.objective_weight)

    def take_step(self) -> Metrics:
        """Clip each group, then take a step of Adam. Lagged targets of the objective move before it, one update behind."""
        limit = self.settings.clip or float("inf")
        norms = {f"grad/{name}": nn.utils.clip_grad_norm_(group, limit) for name, group in self.clipped.items()}
        if self.objective is not None and self.settings.lagged_targets:
            self.objective.move_targets()
        if self.pixels.optimizer is not None:
            norms["grad/pixels"] = self.pixels.optimizer.norm()
        for optimizer in self.optimizers.values():
            optimizer.step()
        if self.objective is not None and not self.settings.lagged_targets:
            self.objective.move_targets()
        return norms

    def copy_if_due(self, step: int) -> None:
        """At a multiple of target_every the network is copied after the updates of that step: here, before the updates of the next step."""
        every = self.settings.target_every
        if every and (step - 1) // every > (self.updated_at - 1) // every:
            self.copy_to_target()
        self.updated_at = step

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """theta- <- theta, including the noise of this update."""
        torch._foreach_copy_(list(self.target.parameters()), list(self.network.parameters()))
        torch._foreach_copy_(list(self.target.buffers()), list(self.network.buffers()))

    def beta(self, step: int) -> float:
        """Linear from beta[0] at the first update to beta[1] at the last step."""
        (low, high), (first, last) = self.settings.beta, self.settings.learning_steps
        done = min(1.0, max(0.0, (step - first) / max(1, last - first)))
        return low + (high - low) * done

    @torch.no_grad()
    def diagnose(self, replay: Replay, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        if self.objective is None or not self.objective.diagnostics or len(replay) == 0:
            return {}, {}
        stream = self.generator.get_state()  # does not advance the random stream of the run
        found = self.objective.diagnose(replay.sample(DIAGNOSED, 1.0).sequence, self.generator)
        self.generator.set_state(stream)
        return found

    def seen(self, obs: Frames, elsewhere: bool = False) -> dict[str, Tensor]:
        return self.pixels.pictures(obs.whole(), elsewhere)

    @property
    def transferable(self) -> dict[str, nn.Module]:
        found = {"encoder": self.network.encoder, "head": self.network.head}
        return found if self.pixels.optimizer is None else found | {"masker": self.pixels}

    def reset_targets(self) -> None:
        self.copy_to_target()
        if self.objective is not None:
            self.objective.reset_targets()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"updated_at": self.updated_at, "dice": self.dice.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.updated_at = state["updated_at"]
        self.dice.set_state(state["dice"].cpu())

    @property
    def modules(self) -> dict[str, nn.Module]:
        pixels = None if self.pixels.optimizer is None else self.pixels  # the identity has nothing to save
        found = {"network": self.network, "target": self.target, "pixels": pixels, "objective": self.objective}
        return {name: module for name, module in found.items() if module is not None}

    @property
    def optimizers(self) -> dict[str, Adam]:
        found = {"optimizer": self.optimizer, "objective": self.objective_optimizer, "pixels": self.pixels.optimizer}
        return {name: optimizer for name, optimizer in found.items() if optimizer is not None}

    def _view(self, frames: Frames) -> Tensor:
        return self.augment.view(frames, self.augment.draw(len(frames), frames.channels, self.generator))
