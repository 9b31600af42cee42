"""A GPU's rules on a machine without one: torch's device `meta`, whose tensors have a shape and no numbers.

Mixing them with the CPU's is an error there as it is on a GPU, and to read one is an error at once: an update that runs on `meta` takes
nothing from the host and gives it nothing. What it computes is not looked at.
"""

import importlib

import torch

DEVICE = torch.device("meta")


class Generator(torch.Generator):
    """One of the CPU that says it is on the device: torch makes none for `meta`, but takes this one there."""

    def __new__(cls, device=None):
        return super().__new__(cls)

    @property
    def device(self):
        return DEVICE


class Adam(torch.optim.Optimizer):
    """Looks at where rates, parameters and gradients are; torch's own fused step refuses `meta`."""

    may_rest = False  # without any gradient

    def __init__(self, parameters, lr, *more, **settings):
        super().__init__(parameters, {"lr": lr})
        assert settings["fused"] and settings["capturable"]

    def step(self):
        for group in self.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            assert (gradients or self.may_rest) and {t.device for t in (group["lr"], *group["params"], *gradients)} == {DEVICE}


def use(patch, tree: str) -> torch.device:
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch.optim, "Adam", Adam)
    patch.setattr(importlib.import_module(f"{tree}.core.machine"), "free_memory", lambda device: 2**40)
    return DEVICE
