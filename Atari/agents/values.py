"""What the network predicts of the return: a distribution over fixed atoms (C51), or its mean alone."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError

TINY = 1e-6  # smallest target probability and priority


class Distribution:
    """C51: probabilities of the returns z_i, evenly spaced atoms between v_min and v_max."""

    def __init__(self, v_min: float, v_max: float, atoms: int, device: torch.device) -> None:
        if not v_min < v_max or atoms < 2:
            raise UserError(f"rainbow: v_min={v_min}, v_max={v_max}, atoms={atoms} must be a range with at least 2 atoms")
        self.support = torch.linspace(v_min, v_max, atoms, device=device)  # z_i, (atoms,)
        self.outputs = atoms

    def read(self, logits: Tensor) -> Tensor:
        """log p(z | s, a), (N, A, atoms)."""
        return logits.log_softmax(-1)

    def q(self, log_p: Tensor) -> Tensor:
        """Q(s, a) = sum_i z_i p_i(s, a), (N, A)."""
        return log_p.exp() @ self.support

    def target(self, log_p: Tensor, return_n: Tensor, done_n: Tensor, discount_n: float) -> Tensor:
        """From log p of the next observation and its chosen action: m, (B, atoms)."""
        return project(log_p.exp(), return_n, done_n, discount_n, self.support)

    def loss(self, log_p: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and KL divergence of the executed actions, (B,) each."""
        return distributional_loss(log_p, action, target)


class Scalar:
    """The mean of the return. Its loss is Huber's, linear from an error of 1 on."""

    outputs = 1

    def read(self, outputs: Tensor) -> Tensor:
        return outputs[..., 0]

    def q(self, q: Tensor) -> Tensor:
        return q

    def target(self, q: Tensor, return_n: Tensor, done_n: Tensor, discount_n: float) -> Tensor:
        return return_n + (1 - done_n) * discount_n * q

    def loss(self, q: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.huber_loss(chosen(q, action), target, reduction="none")
        return loss, loss.detach()


def chosen(values: Tensor, action: Tensor) -> Tensor:
    """The row of each sample's action: (B, A, ...) -> (B, ...)."""
    return values[torch.arange(len(action), device=action.device), action]


def project(probability: Tensor, return_n: Tensor, done_n: Tensor, discount_n: float, support: Tensor) -> Tensor:
    """The distribution (B, atoms) of R + (1 - done) gamma^n Z, projected onto the atoms: m, (B, atoms)."""
    low, high = support[0], support[-1]
    gap = (high - low) / (len(support) - 1)  # Delta z
    shifted = return_n[:, None] + (1 - done_n)[:, None] * discount_n * support  # T z_j = R + gamma^n z_j
    shifted = shifted.clamp(low, high)  # [T z_j] between v_min and v_max
    share = (1 - (shifted[:, None, :] - support[:, None]).abs() / gap).clamp(0, 1)  # 1 - |T z_j - z_i| / Delta z, (B, i, j)
    return (share @ probability[:, :, None])[:, :, 0]  # m_i = sum_j [1 - |T z_j - z_i| / Delta z]_0^1 p_j


def distributional_loss(log_p: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and KL divergence of the executed actions, (B,) each, from log p (B, A, atoms) and m (B, atoms)."""
    log_p = chosen(log_p, action)  # log p_i(s_t, a_t), (B, atoms)
    loss = -(target * log_p).sum(1)  # -sum_i m_i log p_i
    floored = target.clamp(TINY, 1)
    kl = (floored * (floored.log() - log_p.detach())).sum(1)  # sum_i m_i (log m_i - log p_i)
    return loss, kl.clamp(TINY, 1 / TINY)
