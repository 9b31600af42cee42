"""What an update asks of torch."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Each operation with the numbers that the host gives it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        if "_fused_adam" not in str(func):  # on a CPU the host gives it the rate
            tensors = [tuple(a.shape) for a in flat if isinstance(a, torch.Tensor)]
            self.seen.append((str(func), tensors, [a for a in flat if isinstance(a, (bool, int, float, str))]))
        return func(*args, **(kwargs or {}))
