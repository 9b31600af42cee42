"""Target networks that follow the online networks."""

import torch
from torch import nn


class Momentum:
    """target <- target + tau * (online - target), over pairs of modules of the same shape."""

    def __init__(self, *pairs: tuple[nn.Module, nn.Module, float]) -> None:
        self.groups = []
        for online, target, tau in pairs:
            target.requires_grad_(False)
            self.groups.append((list(online.parameters()), list(target.parameters()), tau))

    @torch.no_grad()
    def step(self) -> None:
        for online, target, tau in self.groups:
            if tau == 1.0:
                torch._foreach_copy_(target, online)
            else:
                torch._foreach_lerp_(target, online, tau)

    @torch.no_grad()
    def copy(self) -> None:
        """target <- online"""
        for online, target, _ in self.groups:
            torch._foreach_copy_(target, online)

    @torch.no_grad()
    def distance(self) -> float:
        """The relative distance between the targets and the online networks: |target - online| / |online|."""
        apart = sum((o - t).square().sum() for online, target, _ in self.groups for o, t in zip(online, target, strict=True))
        size = sum(o.square().sum() for online, _, _ in self.groups for o in online)
        return float((apart / size).sqrt()) if self.groups else 0.0
