"""An update recorded once as a CUDA graph: from then on the GPU plays it without Python, launches or waits in between."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

Metrics = dict[str, Tensor]
PLAIN_FIRST = 3  # plain updates of a phase before it is recorded: libraries choose their kernels, memory is laid out


class Recorder:
    """Calls `work`, or plays what it recorded of the same phase. Off a GPU, and where not wanted, it only calls.

    Updates of one phase are the same operations with the same numbers from the host: what changes from one to the next stands in
    tensors on the device (a test compares the operations). The generators' streams go on through the recording. All phases share
    one stream and one pool of memory: they are played one after another, and what outlives an update is kept alive here.
    """

    def __init__(self, device: torch.device, generators: list[torch.Generator], wanted: bool) -> None:
        self.device, self.generators = device, generators
        self.active = wanted and device.type == "cuda"
        self.plain: dict[int, int] = {}
        self.recorded: dict[int, tuple[Any, tuple[Metrics, dict[str, Any]]]] = {}
        if self.active:
            self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, phase: int, work: Callable[[], tuple[Metrics, dict[str, Any]]]) -> tuple[Metrics, dict[str, Any]]:
        """Metrics, and what else `work` returns: tensors that hold the numbers of the newest update of this phase."""
        if not self.active:
            return work()
        if phase not in self.recorded:
            self.plain[phase] = self.plain.get(phase, 0) + 1
            if self.plain[phase] <= PLAIN_FIRST:
                return self._aside(work)
            reason = self._record(phase, work)
            if reason is not None:
                self.active = False
                self.recorded.clear()
                print(f"compile: an update cannot be recorded ({reason}), so updates run plainly", flush=True)
                return work()
        graph, (metrics, rest) = self.recorded[phase]
        graph.replay()
        return {name: value.clone() for name, value in metrics.items()}, dict(rest)  # what was recorded stays as it is

    def forget(self) -> None:
        """What was recorded reads tensors that are no longer in use."""
        self.plain.clear()
        self.recorded.clear()

    def _aside(self, work: Callable[[], Any]) -> Any:
        """On the stream of the recording."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            out = work()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return out

    def _record(self, phase: int, work: Callable[[], tuple[Metrics, dict[str, Any]]]) -> str | None:
        """Nothing runs yet. Returns why it cannot be done, where that was noticed in time."""
        graph, reason = torch.cuda.CUDAGraph(), None
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                try:
                    self.recorded[phase] = graph, work()
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
        except RuntimeError as error:  # CUDA broke it off: this process cannot go on in good order
            first = reason or str(error).splitlines()[0]
            raise UserError(f"compile=true: recording an update failed ({first}): give the same command with compile=false") from error
        return reason
