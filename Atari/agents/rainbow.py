"""Rainbow for few samples: C51, dueling, double, noisy nets, n steps, prioritised. Without an objective it is the Baseline."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import machine
from ..core.errors import UserError
from ..core.method.augment import Augmentation
from ..core.method.encoder import Trunk, renormalise
from ..core.method.frames import Frames
from ..core.method.optim import Adam
from ..core.method.reconstruction import Metrics, Objective
from ..core.run.recorder import Recorder
from ..replay import Batch, Replay

TINY = 1e-6  # floor of the target's probabilities and of the priorities


@dataclass(frozen=True)
class Settings:
    """What Rainbow reads; the YAML block of the same names will do as well."""

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
    lagged_targets: bool = True  # the objective's targets move before the optimiser's step: one update behind


class NoisyLinear(nn.Module):
    """y = (mu_w + sigma_w * e_out e_in^T) x + mu_b + sigma_b * e_out, without building the matrix of noise."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        self.mean = nn.Linear(inputs, outputs)  # uniform in +-1/sqrt(inputs)
        self.sigma_weight = nn.Parameter(torch.full((outputs, inputs), std / inputs**0.5))
        self.sigma_bias = nn.Parameter(torch.full((outputs,), std / outputs**0.5))
        self.register_buffer("noise_in", torch.zeros(inputs))
        self.register_buffer("noise_out", torch.zeros(outputs))

    def resample(self, generator: torch.Generator) -> None:
        """e = sign(x) sqrt|x|, x ~ N(0, 1)."""
        for noise in (self.noise_in, self.noise_out):
            noise.normal_(generator=generator)
            noise.copy_(noise.sign() * noise.abs().sqrt())

    def forward(self, x: Tensor, noisy: bool) -> Tensor:
        y = self.mean(x)
        return y + self.noise_out * F.linear(x * self.noise_in, self.sigma_weight, self.sigma_bias) if noisy else y


class Dueling(nn.Module):
    """Latent (N, d) -> log p(z | s, a), (N, A, atoms)."""

    def __init__(self, latent: int, hidden: int, n_actions: int, atoms: int, noisy_std: float) -> None:
        super().__init__()
        self.shape = (n_actions, atoms)
        self.value_hidden = NoisyLinear(latent, hidden, noisy_std)
        self.value = NoisyLinear(hidden, atoms, noisy_std)
        self.advantage_hidden = NoisyLinear(latent, hidden, noisy_std)
        self.advantage = NoisyLinear(hidden, n_actions * atoms, noisy_std)

    def resample(self, generator: torch.Generator) -> None:
        for layer in self.children():
            layer.resample(generator)

    def forward(self, latent: Tensor, noisy: bool) -> Tensor:
        fixed = latent.detach()
        x = fixed + (latent - fixed) * 0.5**0.5  # two streams flow back: their gradient is scaled by 1/sqrt(2)
        value = self.value(F.relu(self.value_hidden(x, noisy)), noisy).unflatten(1, (1, -1))  # (N, 1, atoms)
        advantage = self.advantage(F.relu(self.advantage_hidden(x, noisy)), noisy).unflatten(1, self.shape)  # (N, A, atoms)
        return (value + advantage - advantage.mean(1, keepdim=True)).log_softmax(-1)


class Network(nn.Module):
    """Convolutions, features scaled to [0, 1], dueling head."""

    def __init__(self, trunk: Trunk, n_actions: int, settings: Settings) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = Dueling(trunk.features, settings.hidden, n_actions, settings.atoms, settings.noisy_std)

    def latent(self, image: Tensor, scale: float = 1 / 255) -> Tensor:
        """(N, C, H, W), values 0..255 -> (N, d) in [0, 1]."""
        return renormalise(self.trunk(image, scale).float())

    def forward(self, image: Tensor, noisy: bool) -> Tensor:
        latent = self.latent(image)
        with self.trunk.precision.autocast():
            return self.head(latent, noisy).float()


class Rainbow:
    """The agent: acts, and updates itself from the replay."""

    period = 1  # updates after which the same parts are due again

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
        self.dice = torch.Generator()  # epsilon's draws: on the host, where actions are needed
        self.dice.manual_seed(generator.initial_seed())
        self.network = Network(trunk, n_actions, settings).to(device)
        self.network.head.resample(generator)
        self.target = copy.deepcopy(self.network).requires_grad_(False)  # no decoder in it
        self.support = torch.linspace(settings.v_min, settings.v_max, settings.atoms, device=device)  # z_i, (atoms,)
        self.objective: Objective | None = None
        self.objective_weight = 1.0
        self.clipped: dict[str, list[nn.Parameter]] = {"network": list(self.network.parameters())}
        self.optimizer = self._make_optimizer([])
        self.exponent = torch.zeros((), dtype=torch.float64, device=device)  # beta, where a recorded update finds it
        self.recorder = Recorder(device, [generator], compile)
        self.updates = 0

    def attach(self, objective: Objective, weight: float, clipped: dict[str, Iterable[nn.Parameter]] | None = None) -> None:
        """Add an objective to the loss, with this weight. `clipped`: which of its own parameters are clipped together."""
        self.objective, self.objective_weight = objective, weight
        for name, parameters in (clipped or {}).items():
            self.clipped[name] = list(parameters)
        self.optimizer = self._make_optimizer(objective.trained())

    @torch.no_grad()
    def act(self, obs: Frames, *, epsilon: float = 0.0, noisy: bool = True, dice: torch.Generator | None = None) -> np.ndarray:
        """Actions for N observations, (N,): greedy, or uniformly random with probability epsilon."""
        n, dice = len(obs), dice or self.dice
        random = torch.randint(self.n_actions, (n,), generator=dice) if epsilon > 0 else None
        if epsilon >= 1:
            return random.numpy()
        q = self.network(obs.whole(), noisy).exp() @ self.support  # Q(s, a) = sum_i z_i p_i(s, a), (N, A)
        greedy = q.argmax(1).cpu()
        if random is None:
            return greedy.numpy()
        return torch.where(torch.rand(n, generator=dice) < epsilon, random, greedy).numpy()

    def update(self, replay: Replay, step: int) -> Metrics:
        """One update at this agent step."""
        self.exponent.fill_(self.beta(step))
        metrics, replay.drawn = self.recorder(0, lambda: (self.update_parts(replay), replay.drawn))
        self.updates += 1
        return metrics

    def update_parts(self, replay: Replay) -> Metrics:
        """Mean over the batch of w * (RL loss + lambda * objective), one step of Adam, new priorities, target."""
        batch = replay.sample(self.settings.batch_size, self.exponent)
        self.network.head.resample(self.generator)
        self.optimizer.zero_grad()
        loss, priority, metrics = self.rl_loss(batch)
        (batch.weight * loss).mean().backward()
        shared = list(self.network.trunk.parameters())
        metrics["grad/encoder"] = nn.utils.get_total_norm([p.grad for p in shared])
        if self.objective is not None:
            before = [p.grad.clone() for p in shared]
            metrics |= self.objective_gradient(batch)
            metrics["grad/objective"] = nn.utils.get_total_norm([p.grad - b for p, b in zip(shared, before, strict=True)])
        metrics |= self.take_step()
        replay.update_priorities(batch.slot, priority)
        self.copy_to_target()
        return metrics

    def rl_loss(self, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """Cross-entropy to the projected target, (B,), and KL for the priorities, (B,). Three views of their own."""
        target = self.target_distribution(batch)  # m, (B, atoms)
        log_p = self.network(self._view(batch.obs), noisy=True)
        loss, priority = distributional_loss(log_p, batch.action, target)
        q = log_p.detach().exp() @ self.support
        metrics = {"loss/rl": loss.detach().mean(), "agent/q": q.amax(1).mean(), "agent/priority": priority.mean()}
        return loss, priority, metrics

    @torch.no_grad()
    def target_distribution(self, batch: Batch) -> Tensor:
        """The target network's distribution of a* n steps later, moved and projected: (B, atoms)."""
        s = self.settings
        online = self.network(self._view(batch.next_obs), noisy=True).exp()  # p(s_{t+n}, a; theta)
        target = self.target(self._view(batch.next_obs), noisy=True).exp()  # p(s_{t+n}, a; theta-)
        best = double_action(online, self.support)
        chosen = target[torch.arange(len(best), device=best.device), best]  # (B, atoms)
        return project(chosen, batch.return_n, batch.done_n, s.discount**s.n_step, self.support)

    def objective_gradient(self, batch: Batch) -> Metrics:
        """Add the gradient of lambda * mean(w * objective); the windows come in parts that bound the memory."""
        start, sums = 0, {}
        for part in self.objective.parts(batch.window, self.generator):
            loss, metrics = self.objective.loss(part)  # (b,)
            weight = batch.weight[start : start + len(loss)] / len(batch.weight)
            (self.objective_weight * (weight * loss).sum()).backward()
            share = len(loss) / len(batch.weight)
            sums = {k: sums.get(k, 0) + v * share for k, v in metrics.items()}
            start += len(loss)
        return sums

    def take_step(self) -> Metrics:
        """Clip each group apart, then Adam. The objective's targets are one update behind where they are lagged."""
        norms = {f"grad/{name}": nn.utils.clip_grad_norm_(group, self.settings.clip) for name, group in self.clipped.items()}
        if self.objective is not None and self.settings.lagged_targets:
            self.objective.after_step()
        self.optimizer.step()
        if self.objective is not None and not self.settings.lagged_targets:
            self.objective.after_step()
        return norms

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """theta- <- theta, and this update's noise with it."""
        torch._foreach_copy_(list(self.target.parameters()), list(self.network.parameters()))
        torch._foreach_copy_(list(self.target.buffers()), list(self.network.buffers()))

    def beta(self, step: int) -> float:
        """Linear from beta[0] at beta_steps[0] to beta[1] at beta_steps[1]."""
        (low, high), (first, last) = self.settings.beta, self.settings.beta_steps
        done = min(1.0, max(0.0, (step - first) / max(1, last - first)))
        return low + (high - low) * done

    def networks(self) -> dict[str, Any]:
        """What acting needs, and the rest of the parameters."""
        out = {"network": self.network.state_dict(), "target": self.target.state_dict()}
        return out if self.objective is None else out | {"objective": self.objective.state_dict()}

    def load_networks(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        if self.objective is not None:
            self.objective.load_state_dict(state["objective"])

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, counter and random streams."""
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
    """The distribution (B, atoms) of R + (1 - done) gamma^n Z, put back on the atoms: m, (B, atoms)."""
    low, high = support[0], support[-1]
    gap = (high - low) / (len(support) - 1)  # Delta z
    moved = return_n[:, None] + (1 - done_n)[:, None] * discount_n * support  # T z_j = R + gamma^n z_j
    moved = moved.clamp(low, high)  # [T z_j] between v_min and v_max
    near = (1 - (moved[:, None, :] - support[:, None]).abs() / gap).clamp(0, 1)  # 1 - |T z_j - z_i| / Delta z, (B, i, j)
    return (near @ probability[:, :, None])[:, :, 0]  # m_i = sum_j [1 - |T z_j - z_i| / Delta z]_0^1 p_j


def distributional_loss(log_p: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and priority of the taken actions, (B,) each, from log p (B, A, atoms) and m (B, atoms)."""
    taken = log_p[torch.arange(len(action), device=action.device), action]  # log p_i(s_t, a_t), (B, atoms)
    loss = -(target * taken).sum(1)  # -sum_i m_i log p_i
    floored = target.clamp(TINY, 1)
    kl = (floored * (floored.log() - taken.detach())).sum(1)  # sum_i m_i (log m_i - log p_i)
    return loss, kl.clamp(TINY, 1 / TINY)
