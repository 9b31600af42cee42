"""An update recorded once as a CUDA graph: from then on the GPU plays it without Python, launches or waits in between."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
PLAIN_FIRST = 3  # plain updates of a phase before it is recorded: libraries choose their kernels, memory is laid out


class Recorder:
    """Calls `work`, or plays what it recorded of the same phase. Off a GPU, and where not wanted, it only calls.

    Updates of one phase are the same operations with the same numbers from the host: what changes from one to the next stands in
    tensors on the device (a test compares the operations). The generators' streams go on through the recording.
    """

    def __init__(self, device: torch.device, generators: list[torch.Generator], wanted: bool) -> None:
        self.device, self.generators = device, generators
        self.active = wanted and device.type == "cuda"
        self.plain: dict[int, int] = {}
        self.recorded: dict[int, tuple[Any, tuple[Metrics, Any]]] = {}

    def __call__(self, phase: int, work: Callable[[], tuple[Metrics, Any]]) -> tuple[Metrics, Any]:
        """Metrics, and what else `work` returns: tensors that hold the numbers of the newest update of this phase."""
        if not self.active:
            return work()
        if phase not in self.recorded:
            self.plain[phase] = self.plain.get(phase, 0) + 1
            if self.plain[phase] <= PLAIN_FIRST:
                return self._aside(work)
            try:
                self._record(phase, work)
            except RuntimeError as error:
                self.active = False
                self.recorded.clear()
                print(f"compile: this update cannot be recorded ({str(error).splitlines()[0]}), so it runs plainly", flush=True)
                return work()
        graph, (metrics, rest) = self.recorded[phase]
        graph.replay()
        return {name: value.clone() for name, value in metrics.items()}, rest

    def _aside(self, work: Callable[[], Any]) -> Any:
        """On a stream of its own, as the recording will be."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            out = work()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        return out

    def _record(self, phase: int, work: Callable[[], tuple[Metrics, Any]]) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):  # nothing runs yet
            out = work()
        self.recorded[phase] = graph, out
