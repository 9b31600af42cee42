"""A GPU's rules on a machine without one: torch's device `meta`, whose tensors have a shape and no numbers.

Mixing them with the CPU's is an error there as it is on a GPU, and to read one is an error at once: an update that runs on `meta` takes
nothing from the host and gives it nothing. What it computes is not looked at.
"""

import importlib

import torch

DEVICE = torch.device("meta")


class Adam(torch.optim.Optimizer):
    """In place of core's MetaAdam: looks at where rates, parameters and gradients are."""

    may_rest = False  # without any gradient

    def __init__(self, parameters, lr, *more, **settings):
        super().__init__(parameters, {"lr": lr})
        assert settings["fused"] and settings["capturable"]

    def step(self):
        for group in self.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            assert (gradients or self.may_rest) and {t.device for t in (group["lr"], *group["params"], *gradients)} == {DEVICE}


def use(patch, tree: str) -> torch.device:
    patch.setattr(importlib.import_module(f"{tree}.core.method.optim"), "MetaAdam", Adam)
    patch.setattr(importlib.import_module(f"{tree}.core.machine"), "free_memory", lambda device: 2**40)
    return DEVICE
