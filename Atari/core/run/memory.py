"""The memory that an agent needs, measured by one update on torch's device `meta`, whose tensors have a size but no data.

The update runs the real networks, optimisers and losses, so this file needs no formulas for their sizes.
"""

import contextlib
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from ..errors import UserError
from ..machine import Precision
from .agent import Agent

META = torch.device("meta")
SCATTERED = 1.75  # factor for activations on a CPU: machine.keep_freed_memory leaves gaps between tensors; measured: 1.2 to 2.7
AUTOCAST = (  # functions that torch.autocast runs in bf16
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.scaled_dot_product_attention, torch.matmul, torch.Tensor.matmul,
    torch.Tensor.__matmul__, torch.bmm, torch.baddbmm, torch.addmm, torch.mm, torch.gru_cell, torch.lstm_cell,
)  # fmt: skip


class Meter(TorchDispatchMode):
    """Counts the bytes of all tensors from their creation to their release."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[int, int, weakref.ref]] = {}  # address: (serial number, bytes, reference that reports the release)
        self.events: list[tuple[int, int]] = []  # serial number, bytes: positive when allocated, negative when released
        self.made, self.answer = 0, False

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:  # .item(): there is no value, so invent one
            self.answer = not self.answer  # true and false in turn, so that a loop such as that of trunc_normal_ ends
            return self.answer if args[0].dtype == torch.bool else 1
        out = function(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, torch.Tensor):
                self.see(value.untyped_storage())
        return out

    def see(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self.alive:
            self.made += 1
            self.alive[address] = self.made, storage.nbytes(), weakref.ref(storage, lambda _: self.gone(address))
            self.events.append((self.made, storage.nbytes()))

    def gone(self, address: int) -> None:
        serial, size, _ = self.alive.pop(address)
        self.events.append((serial, -size))

    @property
    def total(self) -> int:
        return sum(size for _, size, _ in self.alive.values())

    def peak(self) -> int:
        """The largest sum of bytes alive at once, of the tensors that have been released since."""
        remaining, now, most = {serial for serial, _, _ in self.alive.values()}, 0, 0
        for serial, size in self.events:
            now += size if serial not in remaining else 0
            most = max(most, now)
        return most


class Cast(TorchFunctionMode):
    """Does what torch.autocast does, which does not support `meta`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function in AUTOCAST:
            args = tree_map_only(torch.Tensor, lambda t: t.to(self.dtype) if t.is_floating_point() else t, args)
        return function(*args, **(kwargs or {}))


class MetaPrecision(Precision):
    def autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.dtype == torch.float32 else Cast(self.dtype)


def agent_memory(make_agent: Callable[[Precision], Agent], make_replay: Callable[[Agent], Any], precision: Precision) -> dict[str, int]:
    """Bytes of networks (weights, copies, gradients, moments: all that an update leaves) and of activations (the rest at the peak)."""
    meter = Meter()
    try:
        with meter:
            with META:  # makes the weights on meta from the start
                agent = make_agent(MetaPrecision(META, precision.dtype))
            weights = meter.total
            replay = make_replay(agent)
            others = meter.total - weights
            meter.events.clear()
            _update(agent, replay)
            scattered = SCATTERED if precision.device.type == "cpu" else 1
            return {"networks": meter.total - others, "activations": int(meter.peak() * scattered)}
    except (RuntimeError, TypeError) as error:
        if "overflow" not in str(error).lower():
            raise
        raise UserError("the agent's tensors are too large for any machine: lower a batch size or a width") from error


def _update(agent: Agent, replay: Any) -> None:
    """The first update in which every part is due."""
    agent.updates = agent.model_updates
    try:
        agent.update(replay, 0)
    except RuntimeError as error:
        if "overflow" in str(error).lower():
            raise
        reason = str(error).splitlines()[0]
        print(f"memory: an update cannot run without numbers ({reason}), so the estimate is incomplete", flush=True)
