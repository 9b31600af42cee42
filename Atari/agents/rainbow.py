"""Data-efficient Rainbow: C51, dueling, double, noisy nets, n steps, prioritised. Without an objective it is the paper's Baseline."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core import machine
from ..core.errors import UserError
from ..core.method.augment import Augmentation
from ..core.method.encoder import Trunk
from ..core.method.frames import Frames
from ..core.method.objective import Handles, Metrics, Objective, add_gradient
from ..core.method.optim import Adam
from ..core.run.agent import Update
from ..core.run.recorder import Recorder
from ..replay import Batch, Replay
from .networks import Dueling, Network

DIAGNOSED = 16  # sequences for `diagnose`
TINY = 1e-6  # smallest target probability and priority


@dataclass(frozen=True)
class Settings:
    """The settings of Rainbow."""

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
    beta: tuple[float, float]  # exponent of the importance weights, at the first and at the last of beta_steps
    beta_steps: tuple[int, int]
    eval_epsilon: float = 0.001  # in evaluations
    lagged_targets: bool = True  # move the objective's targets before the optimiser's step, one update behind


@dataclass(frozen=True)
class RainbowHandles(Handles):
    """The encoder consists of the convolutions and the scaling of their features to [0, 1]."""

    head: Dueling  # published objectives use its first layers as projection


class Rainbow:
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
        if not settings.v_min < settings.v_max or settings.atoms < 2:
            span = f"v_min={settings.v_min}, v_max={settings.v_max}, atoms={settings.atoms}"
            raise UserError(f"rainbow: {span} must be a range with at least 2 atoms")
        self.settings, self.n_actions, self.augment = settings, n_actions, augment
        self.device, self.generator = device, generator
        self.dice = torch.Generator()  # random actions, drawn on the host, where they are needed
        self.dice.manual_seed(generator.initial_seed())
        self.network = Network(trunk, n_actions, settings.hidden, settings.atoms, settings.noisy_std).to(device)
        self.network.head.resample(generator)
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.support = torch.linspace(settings.v_min, settings.v_max, settings.atoms, device=device)  # z_i, (atoms,)
        self.objective: Objective | None = None
        self.objective_weight = 1.0
        self.clipped: dict[str, list[nn.Parameter]] = {"network": list(self.network.parameters())}
        self.optimizer = self._make_optimizer([])
        self.exponent = torch.zeros((), dtype=torch.float64, device=device)  # beta, on the device for a recorded update
        self.recorder = Recorder(device, [generator], compile)
        self.updates = 0

    @property
    def handles(self) -> RainbowHandles:
        """The parts of the agent that an objective may use."""
        trunk = self.network.trunk
        return RainbowHandles(
            self.network.encoder, lambda image: image, self.augment, trunk.features, self.augment.out, self.n_actions, self.device,
            self.network.head,
        )  # fmt: skip

    def attach(self, objective: Objective, weight: float = 1.0) -> None:
        """Add an objective to the loss, with this weight."""
        if objective.batch_size is not None or objective.every != 1 or objective.after_targets:
            raise ValueError("Rainbow takes an objective's gradient in each of its updates, from its own batch")
        self.objective, self.objective_weight = objective, weight
        own = {id(p) for p in self.network.parameters()}
        groups = {name: [p for p in group if id(p) not in own] for name, group in objective.clip_groups().items()}
        self.clipped |= {name: group for name, group in groups.items() if group}
        self.optimizer = self._make_optimizer(objective.trained())

    @property
    def window(self) -> int:
        return 0 if self.objective is None else self.objective.window

    @property
    def columns(self) -> tuple[str, ...]:
        own = ("loss/rl", "agent/q", "agent/priority", *(f"grad/{name}" for name in self.clipped), "grad/encoder")
        return own if self.objective is None else (*own, *self.objective.columns, "grad/objective")

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
        q = self.network(obs.whole(), noisy=explore).exp() @ self.support  # Q(s, a) = sum_i z_i p_i(s, a), (N, A)
        greedy = q.argmax(1).cpu()
        if random is None:
            return greedy.numpy(), state
        return torch.where(torch.rand(n, generator=dice) < epsilon, random, greedy).numpy(), state

    def random_action(self) -> np.ndarray:
        return torch.randint(self.n_actions, (1,), generator=self.dice).numpy()[0]

    def update(self, replay: Replay, step: int) -> Update:
        self.exponent.fill_(self.beta(step))
        if self.objective is not None:
            self.objective.at_step(step)
        metrics, drawn = self.recorder(0, lambda: self.update_parts(replay))
        self.updates += 1
        return Update(metrics, drawn)

    def update_parts(self, replay: Replay) -> Update:
        """Mean over the batch of w * (RL loss + lambda * objective), one step of Adam, new priorities, target network."""
        batch = replay.sample(self.settings.batch_size, self.exponent)
        self.network.head.resample(self.generator)
        self.optimizer.zero_grad()
        shares = self.objective is not None and self.objective.shares_state
        state = self.network.encoder(self._view(batch.obs)) if shares else None  # (B, d), encoded once for both losses
        loss, priority, metrics = self.rl_loss(batch, state)
        (batch.weight * loss).mean().backward(retain_graph=shares)
        shared = list(self.network.trunk.parameters())
        metrics["grad/encoder"] = nn.utils.get_total_norm([p.grad for p in shared])
        if self.objective is not None:
            before = [p.grad.clone() for p in shared]
            metrics |= self.objective_gradient(batch, state)
            metrics["grad/objective"] = nn.utils.get_total_norm([p.grad - b for p, b in zip(shared, before, strict=True)])
        metrics |= self.take_step()
        replay.update_priorities(batch.slot, priority)
        self.copy_to_target()
        return Update(metrics, {"batch": batch})

    def rl_loss(self, batch: Batch, state: Tensor | None = None) -> tuple[Tensor, Tensor, Metrics]:
        """Cross-entropy with the projected target, (B,), and KL for the priorities, (B,). Draws three separate augmentations.

        state: the latents of batch.obs, if they are encoded already.
        """
        target = self.target_distribution(batch)  # m, (B, atoms)
        log_p = self.network.log_p(self.network.encoder(self._view(batch.obs)) if state is None else state, noisy=True)
        loss, priority = distributional_loss(log_p, batch.action, target)
        q = log_p.detach().exp() @ self.support
        metrics = {"loss/rl": loss.detach().mean(), "agent/q": q.amax(1).mean(), "agent/priority": priority.mean()}
        return loss, priority, metrics

    @torch.no_grad()
    def target_distribution(self, batch: Batch) -> Tensor:
        """The target network's distribution for a* n steps later, shifted and projected: (B, atoms)."""
        s = self.settings
        online = self.network(self._view(batch.next_obs), noisy=True).exp()  # p(s_{t+n}, a; theta)
        target = self.target(self._view(batch.next_obs), noisy=True).exp()  # p(s_{t+n}, a; theta-)
        best = double_action(online, self.support)
        chosen = target[torch.arange(len(best), device=best.device), best]  # (B, atoms)
        return project(chosen, batch.return_n, batch.done_n, s.discount**s.n_step, self.support)

    def objective_gradient(self, batch: Batch, state: Tensor | None = None) -> Metrics:
        """Add the gradient of lambda * mean(w * objective), also through the latents that it shares with the RL loss."""
        weight = batch.sequence.valid * batch.weight / len(batch.weight)
        shared = None if state is None else state.detach().requires_grad_()
        sequence = replace(batch.sequence, state=shared)
        metrics = add_gradient(self.objective, sequence, weight, self.generator, scale=self.objective_weight)
        if state is not None:
            state.backward(shared.grad)
        return metrics

    def take_step(self) -> Metrics:
        """Clip each group, then take a step of Adam. Lagged targets of the objective move before it, one update behind."""
        norms = {f"grad/{name}": nn.utils.clip_grad_norm_(group, self.settings.clip) for name, group in self.clipped.items()}
        if self.objective is not None and self.settings.lagged_targets:
            self.objective.move_targets()
        self.optimizer.step()
        if self.objective is not None and not self.settings.lagged_targets:
            self.objective.move_targets()
        return norms

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """theta- <- theta, including the noise of this update."""
        torch._foreach_copy_(list(self.target.parameters()), list(self.network.parameters()))
        torch._foreach_copy_(list(self.target.buffers()), list(self.network.buffers()))

    def beta(self, step: int) -> float:
        """Linear from beta[0] at beta_steps[0] to beta[1] at beta_steps[1]."""
        (low, high), (first, last) = self.settings.beta, self.settings.beta_steps
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
        return {}

    def networks(self) -> dict[str, Any]:
        return {name: module.state_dict() for name, module in self._modules().items()}

    def load_networks(self, state: dict[str, Any]) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(state[name])

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "generator": self.generator.get_state(),
            "dice": self.dice.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recorder.forget()
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        machine.restore(self.generator, state["generator"])
        self.dice.set_state(state["dice"].cpu())

    def _modules(self) -> dict[str, nn.Module]:
        found = {"network": self.network, "target": self.target, "objective": self.objective}
        return {name: module for name, module in found.items() if module is not None}

    def _view(self, frames: Frames) -> Tensor:
        return self.augment.view(frames, self.augment.draw(len(frames), frames.channels, self.generator))

    def _make_optimizer(self, more: Iterable[nn.Parameter]) -> Adam:
        own = list(self.network.parameters())
        known = {id(p) for p in own}
        more = [p for p in more if id(p) not in known]
        return Adam([*own, *more], self.settings.lr, eps=self.settings.adam_eps)


def double_action(online: Tensor, support: Tensor) -> Tensor:
    """a* = argmax_a sum_i z_i p_i(s, a; theta): (B, A, atoms) -> (B,)."""
    return (online @ support).argmax(1)


def project(probability: Tensor, return_n: Tensor, done_n: Tensor, discount_n: float, support: Tensor) -> Tensor:
    """The distribution (B, atoms) of R + (1 - done) gamma^n Z, projected onto the atoms: m, (B, atoms)."""
    low, high = support[0], support[-1]
    gap = (high - low) / (len(support) - 1)  # Delta z
    shifted = return_n[:, None] + (1 - done_n)[:, None] * discount_n * support  # T z_j = R + gamma^n z_j
    shifted = shifted.clamp(low, high)  # [T z_j] between v_min and v_max
    share = (1 - (shifted[:, None, :] - support[:, None]).abs() / gap).clamp(0, 1)  # 1 - |T z_j - z_i| / Delta z, (B, i, j)
    return (share @ probability[:, :, None])[:, :, 0]  # m_i = sum_j [1 - |T z_j - z_i| / Delta z]_0^1 p_j


def distributional_loss(log_p: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and priority of the executed actions, (B,) each, from log p (B, A, atoms) and m (B, atoms)."""
    chosen = log_p[torch.arange(len(action), device=action.device), action]  # log p_i(s_t, a_t), (B, atoms)
    loss = -(target * chosen).sum(1)  # -sum_i m_i log p_i
    floored = target.clamp(TINY, 1)
    kl = (floored * (floored.log() - chosen.detach())).sum(1)  # sum_i m_i (log m_i - log p_i)
    return loss, kl.clamp(TINY, 1 / TINY)
