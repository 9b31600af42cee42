"""The memory that is counted on `meta`, against what the same agent takes with numbers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

import Atari.agents.rainbow
import Atari.core.method.objective
import Atari.memory
import Atari.methods
import Atari.settings
import Atari.train
import DMControl.agents.sac
import DMControl.core.method.objective
import DMControl.memory
import DMControl.methods
import DMControl.settings
from Atari.core.machine import Precision as AtariPrecision
from Atari.env import Step
from DMControl.core.machine import Precision
from DMControl.core.method.optim import Adam
from DMControl.core.run.memory import SCATTERED
from DMControl.replay import Replay

CPU = torch.device("cpu")
TREES = {"dmcontrol": DMControl, "atari": Atari}
PRECISION = {"dmcontrol": Precision, "atari": AtariPrecision}
WORLD_MODELS = ("dreamer", "planet", "slac")
SIZES = {
    "dmcontrol": [
        *("preset=debug", "encoder.filters=16", "sac.batch_size=64", "sac.hidden=256"),
        *("soda.batch_size=64", "mlr.batch_size=16", "spr.batch_size=64"),
    ],
    "world models": ["preset=debug", *(f"{m}.{k}" for m in WORLD_MODELS for k in ("batch_size=8", "length=10", "filters=8"))],
    "atari": ["preset=debug", "encoder.filters=[16,32]", "rainbow.batch_size=64", "rainbow.hidden=16", "mlr.decoder.width=64"],
}
CASES = [
    *(("dmcontrol", method) for method in sorted(DMControl.methods.METHODS)),
    ("dmcontrol", "mlr", "mlr.target=pixels", "mlr.hidden=30", "quirks.one_mask_per_batch=false"),
    ("dmcontrol", "mlr", "chunk=16", "encoder.strides=[1,3]", "mlr.decoder.width=64", "mlr.action_tokens=false"),
    ("dmcontrol", "svea", "strong_augmentation.kind=conv", "chunk=24"),
    ("dmcontrol", "baseline", "augment.order=[resized_crop,affine]"),
    ("dmcontrol", "baseline", "augment.order=[crop,intensity,blur]"),
    ("atari", "baseline"),
    ("atari", "mlr"),
    ("atari", "madi", "strong_augmentation.images=1"),
    ("atari", "mlr_madi"),
    ("atari", "spr"),
    ("atari", "playvirtual", "playvirtual.copies_per_action=3"),
    ("atari", "mlr", "mlr.target=pixels", "mlr.decoder.width=0", "mlr.chunk=8"),
    ("atari", "mlr", "encoder.filters=[8,16,8]", "encoder.kernels=[5,4,3]", "encoder.strides=[2,2,1]", "mlr.action_tokens=false"),
]


def make(tree: str, method: str, *settings: str):
    if method in WORLD_MODELS:
        used = [s for s in SIZES["world models"] if s.startswith(("preset=", f"{method}."))]
        used += ["train.catch_up=0"] if method == "slac" else []  # its first updates are of the model alone
        return TREES[tree].settings.read_config([f"method={method}", *used, *settings])
    own = "spr" if method == "playvirtual" else method.split("_")[0]  # the block of its own sizes
    used = [s for s in SIZES[tree] if not s.startswith(("soda.", "mlr.", "spr.")) or s.startswith(f"{own}.")]
    return TREES[tree].settings.read_config([f"method={method}", *used, *settings])


def needs(tree: str, config, dtype: torch.dtype = torch.float32) -> dict[str, int]:
    return TREES[tree].memory.memory(config, 4, PRECISION[tree](CPU, dtype))


def real(tree: str, config):
    """The agent, and its replay with some steps in it."""
    agent = TREES[tree].methods.make_agent(config, 4, PRECISION[tree](CPU, torch.float32))
    rng = np.random.default_rng(0)
    if tree == "atari":
        replay, size = Atari.train.make_replay(config, agent), config.env.size
        replay.start(rng.integers(0, 256, (size, size, 1), dtype=np.uint8))
        for _ in range(40):
            replay.add(1, Step(rng.integers(0, 256, (size, size, 1), dtype=np.uint8), 1.0, 1.0, False, False, False))
        return agent, replay
    image = config.image
    replay = Replay(100, 50, image.stack, image.size, 4, CPU, agent.generator)
    replay.start(rng.integers(0, 256, (image.size, image.size, 3), dtype=np.uint8))
    for _ in range(40):
        replay.add(np.zeros(4, np.float32), 1.0, False, False, rng.integers(0, 256, (image.size, image.size, 3), dtype=np.uint8))
    return agent, replay


def tensors_of(agent) -> int:
    """Bytes of weights, buffers, gradients and moments, every tensor once."""
    found = [t for module in agent.modules.values() for t in (*module.parameters(), *module.buffers())]
    found += [p.grad for p in found if p.grad is not None]
    found += [m for o in agent.optimizers.values() for state in o.inner.state.values() for m in state.values()]
    return sum({t.data_ptr(): t.nbytes for t in found}.values())


def peak(work) -> int:
    """The most bytes that the CPU's allocator has handed out at once during the work, of what is released again: not the new gradients."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events, moves = list(profiled.profiler.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation:
            moves.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    alive: dict[int, int] = {}  # address: place of its allocation in `taken`
    taken = []
    for _, address, size in sorted(moves, key=lambda move: move[0]):
        if size > 0:
            alive[address] = len(taken)
            taken.append(size)
        elif address in alive:  # else it is older than the work
            taken.append(size)
            del alive[address]
    for place in alive.values():
        taken[place] = 0
    return int(np.cumsum(taken).max())


@pytest.mark.parametrize(("tree", "method", "settings"), [(t, m, s) for t, m, *s in CASES], ids=[" ".join(c) for c in CASES])
def test_an_update_takes_what_was_counted(tree, method, settings):
    config = make(tree, method, *settings)
    counted = needs(tree, config)
    agent, replay = real(tree, config)
    first = agent.update(replay, 1)
    agent.updates = 0  # all parts are due again
    assert counted["networks"] == pytest.approx(tensors_of(agent), rel=0.02)
    took = peak(lambda: agent.update(replay, 1))
    counted["activations"] /= SCATTERED
    assert 0.85 < counted["activations"] / took < 1.1
    del first


@pytest.mark.parametrize("tree", TREES)
def test_a_new_method_is_counted(tree, monkeypatch):
    module = TREES[tree].core.method.objective

    class Wide(module.Objective):
        def __init__(self, handles):
            super().__init__()
            self.encoder, self.layer = handles.encoder, nn.Linear(handles.latent, 50_000).to(handles.device)

        def loss(self, part):
            out = self.layer(self.encoder(part.obs.centre_crop(36)))
            return out.square().mean(1).view(len(part), -1).mean(1), {}

    def build(config, agent):
        objective = Wide(agent.handles)
        agent.attach(objective, *([] if tree == "atari" else [Adam(objective.trained(), 1e-3)]))

    config = make(tree, "baseline")
    plain = needs(tree, config)
    methods = TREES[tree].methods
    monkeypatch.setitem(methods.METHODS, "baseline", (methods.on_rainbow if tree == "atari" else methods.on_sac)(build))
    wide, agent = needs(tree, config), real(tree, config)[0]
    layer = 50_000 * (agent.objective.layer.in_features + 1)
    assert wide["networks"] - plain["networks"] >= 16 * layer
    assert wide["activations"] - plain["activations"] > 4 * 64 * 50_000


@pytest.mark.parametrize("tree", TREES)
def test_less_precision_takes_less(tree):
    config = make(tree, "mlr")
    whole, half = needs(tree, config), needs(tree, config, torch.bfloat16)
    assert half["networks"] == whole["networks"] and 0.4 < half["activations"] / whole["activations"] < 1


def test_an_update_that_reads_its_numbers_is_counted_as_far_as_it_runs(monkeypatch, capsys):
    monkeypatch.setattr(DMControl.agents.sac.SAC, "update_actor", lambda self, obs, view: {"agent/x": obs.index.cpu()})
    counted = needs("dmcontrol", make("dmcontrol", "baseline"))
    assert counted["activations"] > 2**20 and "cannot run without numbers" in capsys.readouterr().out
