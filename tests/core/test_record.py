"""How updates are recorded, and what happens where they cannot be. CUDA is played here; the fast paths' tests run it on a GPU."""

import contextlib
import types
import weakref

import pytest
import torch

from DMControl.core.errors import UserError
from DMControl.core.machine import HostNeeded, refuse_in_recording
from DMControl.core.method.frames import Frames
from DMControl.core.run.recorder import WARMUP, Recorder

GPU = torch.device("cuda")
CPU = torch.device("cpu")


class Cuda:
    """While it records nothing is computed; a recording computes when it is played. `invalid`: a call in between broke it."""

    def __init__(self, monkeypatch):
        self.capturing = self.invalid = False
        self.noted = []  # the kernels of the recording being made
        self.pools = {}  # the graphs in each pool of memory
        cuda, me = torch.cuda, self
        stream = types.SimpleNamespace(wait_stream=lambda other: None)

        class Graph:
            def __init__(self):
                self.generators, self.kernels = [], []

            def register_generator_state(self, generator):
                self.generators.append(generator)

            def replay(self):
                for kernel in self.kernels:
                    kernel()

        @contextlib.contextmanager
        def record(graph, pool, stream):
            assert stream is me.stream
            if pool in me.pools and not me.pools[pool]:
                raise RuntimeError("it->second->use_count > 0 INTERNAL ASSERT FAILED")
            me.pools.setdefault(pool, weakref.WeakSet()).add(graph)
            me.capturing, me.noted = True, graph.kernels
            try:
                yield
            finally:
                me.capturing = False
            if me.invalid:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nmore")

        self.stream = stream
        for name, value in {
            "Stream": lambda device: stream,
            "current_stream": lambda device: stream,
            "stream": lambda s: contextlib.nullcontext(),
            "graph_pool_handle": object,
            "CUDAGraph": Graph,
            "graph": record,
            "is_current_stream_capturing": lambda: me.capturing,
        }.items():
            monkeypatch.setattr(cuda, name, value)

    def launch(self, kernel):
        self.noted.append(kernel) if self.capturing else kernel()


class Update:
    """Counts itself in tensors that stay where they are, as a recorded update does."""

    def __init__(self, cuda):
        self.cuda, self.done, self.metric, self.drawn = cuda, 0, torch.zeros(()), torch.zeros(())

    def __call__(self):
        self.cuda.launch(self.kernel)
        return {"loss": self.metric}, {"batch": self.drawn}

    def kernel(self):
        self.done += 1
        self.metric += 1
        self.drawn += 10


def test_without_a_gpu_nothing_is_recorded():
    recorder = Recorder(CPU, [], wanted=True)
    assert not recorder.active and recorder(0, lambda: ({"a": 1}, {"b": 2})) == ({"a": 1}, {"b": 2})
    refuse_in_recording(CPU, "nothing to say on a CPU")


def test_each_phase_is_recorded_after_some_plain_updates(monkeypatch):
    update = Update(Cuda(monkeypatch))
    recorder = Recorder(GPU, [generator := torch.Generator()], wanted=True)
    losses = []
    for number in range(4 * WARMUP):
        metrics, drawn = recorder(number % 2, update)
        assert update.done == number + 1  # the update that was just being recorded, too
        losses.append(metrics["loss"])
        assert drawn.pop("batch") is update.drawn  # the newest; what is done to the dict leaves the recording alone
    assert set(recorder.recorded) == {0, 1} and recorder.recorded[0][0].generators == [generator]
    played = losses[2 * WARMUP :]
    assert len({loss.data_ptr() for loss in played}) == len(played)  # copies: the recording writes over its own
    assert [int(a) for a in played] == sorted({int(a) for a in played})
    old = weakref.ref(recorder.recorded[0][0])
    recorder.forget()  # as a save is loaded
    assert old() is None
    for number in range(2 * WARMUP):
        assert recorder(number % 2, update) and not recorder.recorded
    assert recorder(0, update) and recorder.recorded and update.done == 6 * WARMUP + 1


@pytest.mark.parametrize("reason", ["augmentation blur draws on the host", "CUDA out of memory"])
def test_what_cannot_be_recorded_runs_plainly(monkeypatch, capsys, reason):
    cuda = Cuda(monkeypatch)
    update, recording = Update(cuda), []

    def work():
        if cuda.capturing:
            recording.append(1)
            if "host" not in reason:
                raise torch.OutOfMemoryError(reason)
        refuse_in_recording(GPU, reason)
        return update()

    recorder = Recorder(GPU, [], wanted=True)
    for number in range(1, WARMUP + 4):
        recorder(0, work)
        assert update.done == number
    assert recording == [1] and not recorder.active and not recorder.recorded
    assert capsys.readouterr().out == f"compile: an update cannot be recorded ({reason}), so updates run without recording\n"


def test_a_recording_that_cuda_breaks_off_ends_the_run_with_a_way_out(monkeypatch):
    cuda = Cuda(monkeypatch)
    update = Update(cuda)

    def work():
        if cuda.capturing:
            cuda.invalid = True
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be reported later")
        return update()

    recorder = Recorder(GPU, [], wanted=True)
    for _ in range(WARMUP):
        recorder(0, work)
    with pytest.raises(UserError, match=r"\(operation not permitted when stream is capturing\).*compile=false"):
        recorder(0, work)


def test_frames_in_ram_read_for_a_gpu_are_not_recorded(monkeypatch):
    cuda = Cuda(monkeypatch)
    cuda.capturing = True
    frames = Frames(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 3, dtype=torch.int64))
    assert frames.whole().shape == (1, 9, 8, 8)  # both on the CPU
    on_gpu = types.SimpleNamespace(device=GPU)  # an index there
    with pytest.raises(HostNeeded, match="the replay is in RAM"):
        Frames(frames.store, on_gpu).crop(torch.zeros(1, 8), torch.zeros(1, 1), 8)
