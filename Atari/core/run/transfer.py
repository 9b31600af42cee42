"""Begin with parts of another run: transfer.run, transfer.parts, transfer.freeze."""

from collections.abc import Iterable

import torch
from torch import nn

from ..errors import UserError, nearest
from .agent import Agent
from .config import Config
from .paths import short_name


def adopt(agent: Agent, source: Agent, config: Config) -> str:
    """Copy the parts from the source, and let the target networks begin anew from them. Returns a line that says so."""
    transfer = config.transfer
    for name in transfer.parts:
        own, other = _part(agent, name, config.method), source.transferable.get(name)
        if other is None:
            raise UserError(f"transfer.parts={name}: {transfer.run} has only {', '.join(source.transferable)}")
        if name in getattr(source, "lacking", ()):
            raise UserError(f"transfer.parts={name}: {transfer.run} holds only what acts: name the run that it was made of")
        _check_shapes(name, own, other)
        own.load_state_dict(other.state_dict())
    agent.reset_targets()
    frozen = ", which stays as it is" if transfer.freeze and len(transfer.parts) == 1 else ", which stay as they are"
    return f"transfer: {', '.join(transfer.parts)} from {short_name(transfer.run)}{frozen if transfer.freeze else ''}"


def freeze(agent: Agent, config: Config) -> None:
    """Let no optimiser change the parts. They still pass gradients on."""
    parameters = [p for name in config.transfer.parts for p in _part(agent, name, config.method).parameters()]
    for p in parameters:
        p.register_hook(torch.zeros_like)  # so that no gradient norm counts them
    for optimizer in agent.optimizers.values():
        optimizer.leave_out(parameters)


def _part(agent: Agent, name: str, method: str) -> nn.Module:
    if name not in agent.transferable:
        raise UserError(f"transfer.parts={name} is unknown for method={method}: {nearest(name, agent.transferable)}")
    return agent.transferable[name]


def _check_shapes(name: str, own: nn.Module, other: nn.Module) -> None:
    shapes, theirs = ({key: tuple(value.shape) for key, value in module.state_dict().items()} for module in (own, other))
    for key in sorted(shapes.keys() | theirs.keys(), key=[*shapes, *theirs].index):
        if shapes.get(key) != theirs.get(key):
            raise UserError(
                f"transfer.parts={name}: {key} has the shape {_shape(theirs.get(key))} there and {_shape(shapes.get(key))} here: "
                "both runs need the same settings of this part and of the images"
            )


def _shape(shape: Iterable[int] | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "1"
