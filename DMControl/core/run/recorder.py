"""Records an update as a CUDA graph, which the GPU replays without Python or kernel launches in between."""

from collections.abc import Callable
from typing import Any

import torch

from ..errors import UserError
from ..method.objective import Metrics

WARMUP = 3  # plain updates of a phase before it is recorded, in which libraries choose kernels and allocate memory


class Recorder:
    """Calls `update`, or replays the graph of its phase. Without a GPU, or with wanted=False, it always calls.

    Updates of one phase run the same operations with the same Python numbers. Whatever changes between them must be in tensors on
    the device; a test compares the operations. Replays advance the random streams of the generators. All phases share one stream
    and one memory pool, since they run one after another; the recorder keeps the outputs alive.
    """

    def __init__(self, device: torch.device, generators: list[torch.Generator], wanted: bool) -> None:
        self.device, self.generators = device, generators
        self.active = wanted and device.type == "cuda"
        self.plain: dict[int, int] = {}
        self.recorded: dict[int, tuple[Any, tuple[Metrics, dict[str, Any]]]] = {}
        if self.active:
            self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, phase: int, update: Callable[[], tuple[Metrics, dict[str, Any]]]) -> tuple[Metrics, dict[str, Any]]:
        """The metrics and the samples of an update. The next replay of this phase overwrites the samples."""
        if not self.active:
            return update()
        if phase not in self.recorded:
            self.plain[phase] = self.plain.get(phase, 0) + 1
            if self.plain[phase] <= WARMUP:
                return self._on_own_stream(update)
            reason = self._record(phase, update)
            if reason is not None:
                self.active = False
                self.recorded.clear()
                print(f"compile: an update cannot be recorded ({reason}), so updates run without recording", flush=True)
                return update()
        graph, (metrics, rest) = self.recorded[phase]
        graph.replay()
        return {name: value.clone() for name, value in metrics.items()}, dict(rest)  # copies: the next replay overwrites the originals

    def forget(self) -> None:
        """Discard the graphs: they refer to tensors that are no longer in use."""
        self.plain.clear()
        self.recorded.clear()
        if self.active:
            self.pool = torch.cuda.graph_pool_handle()  # CUDA records nothing more into a pool whose graphs are gone

    def _on_own_stream(self, update: Callable[[], Any]) -> Any:
        """Run on the stream that records."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            out = update()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return out

    def _record(self, phase: int, update: Callable[[], tuple[Metrics, dict[str, Any]]]) -> str | None:
        """Record the update without running it. Returns the reason if it cannot be recorded, else None."""
        graph, reason = torch.cuda.CUDAGraph(), None
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                try:
                    self.recorded[phase] = graph, update()
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
        except RuntimeError as error:  # CUDA aborted the recording, which leaves this process unusable
            first = reason or str(error).splitlines()[0]
            raise UserError(f"compile=true: recording an update failed ({first}): repeat the command with compile=false") from error
        return reason
