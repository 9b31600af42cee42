"""What bench measures: an agent of either tree with a filled replay. Its updates are timed part by part, its environment by the step."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from DMControl.core import machine
from scripts.bench.flops import atari_flops, dmcontrol_flops, image_passes
from scripts.trees import DMCONTROL, Tree

DEFAULTS = {"dmcontrol": ("task=cheetah_run", "env_steps=400000"), "atari": ("game=alien",)}
FLOPS = {"dmcontrol": dmcontrol_flops, "atari": atari_flops}
PARTS = {  # the methods that make up a part of an update; those of an objective or a critic's loss only where the agent has it
    "dmcontrol": {
        "sample": ("replay.sample", "replay.sample_sequences", "replay.sample_chunks", "replay.sample_histories"),
        "augment": (
            "agent.augment.view", "agent.augment.draw", "agent.objective.augment.view", "agent.objective.augment.draw",
            "agent.critic_loss.strong.view", "agent.critic_loss.strong.draw",
        ),
        "rl loss": ("agent.update_critic",),
        "objective forward": ("agent.objective.loss",),
        "objective backward": ("agent.update_objective",),
        "masker forward": ("agent.pixels.forward",),
        "world model": ("agent.model_gradient",),
        "behaviour": ("agent.behaviour_gradients", "agent.sac_gradients"),
        "actor": ("agent.update_actor",),
        "ema": ("agent.momentum.step", "agent.objective.move_targets"),
    },
    "atari": {
        "sample": ("replay.sample", "replay.update_priorities"),
        "augment": ("agent.augment.view", "agent.augment.draw"),
        "rl loss": ("agent.make_target", "agent.encode", "agent.rl_loss"),
        "objective forward": ("agent.objective.loss",),
        "objective backward": ("agent.objective_gradient",),
        "optimiser": ("agent.take_step",),
        "ema": ("agent.copy_to_target", "agent.objective.move_targets"),
    },
}  # fmt: skip


class Clock:
    """Exclusive time per part: a part that runs inside another one is taken out of it. The GPU is timed with events."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.stack: list[str] = []
        self.times: list[tuple[str, Any]] = []

    def now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wrap(self, owner: Any, name: str, part: str) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args, **kwargs):
            self.enter(part)
            try:
                return inner(*args, **kwargs)
            finally:
                self.leave()

        object.__setattr__(owner, name, timed)

    def enter(self, part: str) -> None:
        self.times.append((self.stack[-1] if self.stack else "", self.now()))
        self.stack.append(part)

    def leave(self) -> None:
        self.times.append((self.stack.pop(), self.now()))

    def read(self) -> dict[str, float]:
        """Milliseconds per part since the last reading."""
        if self.cuda:
            torch.cuda.synchronize()
        spent: dict[str, float] = {}
        for (_, before), (part, after) in zip(self.times, self.times[1:], strict=False):
            took = before.elapsed_time(after) if self.cuda else (after - before) * 1e3
            spent[part] = spent.get(part, 0.0) + took
        self.times = []
        return spent


class Subject:
    """An agent with a filled replay and an environment."""

    def __init__(self, tree: Tree, arguments: list[str]) -> None:
        self.tree = tree
        self.config = config = tree.read_config([*DEFAULTS[tree.name], *arguments])
        self.device = machine.choose_device(config.device)
        self.precision = machine.choose_precision(config.precision, self.device)
        machine.set_threads(config.threads)
        self.env = tree.make_env(config, 0, clean=True)
        self.agent = tree.make_agent(config, self.env, self.precision)
        self.replay = tree.make_replay(config, self.env, self.agent)
        self.rng = np.random.default_rng(0)
        tree.fill(self.replay, self.env, self.rng)
        alone = "sac" not in config and "rainbow" not in config  # an agent of its own, which does no operation twice
        self.flops = self.counted_flops() if alone else FLOPS[tree.name](config, tree.actions(self.env))
        self.passes = image_passes(config) if tree is DMCONTROL else 0.0
        # a run of 100,000 env steps on DMControl, of 100,000 agent steps on Atari
        self.run_steps = -(-100_000 // tree.repeat(config)) if tree is DMCONTROL else 100_000
        self.run_updates = tree.updates(config, self.run_steps)

    def update(self) -> None:
        self.tree.update(self.agent, self.replay)

    def counted_flops(self) -> float:
        """GFLOP of an update, as torch counts them."""
        with FlopCounterMode(display=False) as counter:
            self.update()
        return counter.get_total_flops() / 1e9

    def timed_methods(self) -> Iterator[tuple[str, str, Any]]:
        """The part, the path and the owner of each method to be timed."""
        for part, paths in PARTS[self.tree.name].items():
            for path in paths:
                *outer, name = path.split(".")
                owner = functools.reduce(lambda found, key: getattr(found, key, None), outer, self)
                if getattr(owner, name, None) is not None:
                    yield part, path, owner

    def time_parts(self, clock: Clock) -> None:
        """From now on the clock knows which part of an update takes how long."""
        for part, path, owner in self.timed_methods():
            clock.wrap(owner, path.rpartition(".")[2], part)
        for optimizer in self.agent.optimizers.values():
            for name in ("step", "zero_grad"):
                clock.wrap(optimizer, name, "optimiser")

    def steps_per_second(self, env: Any) -> float:
        action = self.tree.random_action(env, self.rng)
        env.reset()
        return per_second(lambda: env.reset() if env.over else env.step(action))

    def environment(self) -> dict[str, float]:
        """Calls per second of the environment; last its steps."""
        rates = {}
        if self.tree is DMCONTROL:
            rates = self.worlds()
            self.env.reset()
            rates["render"] = per_second(self.env.render)
        return rates | {"step": self.steps_per_second(self.env)}

    def worlds(self) -> dict[str, float]:
        """Resets and steps per second in each world that the configuration evaluates in."""
        if not self.config.eval.worlds:
            return {}
        env_module, evaluate, catalogue = (self.tree.load(name) for name in ("env", "evaluate", "worlds.catalogue"))
        rates = {}
        for world in catalogue.world_names(["clean", *self.config.eval.worlds], self.config.eval.intensities):
            env = evaluate.make_env(self.config, 0, env_module.EVALUATE, world)
            rates |= {f"reset in {world}": per_second(env.reset), f"step in {world}": self.steps_per_second(env)}
            env.close()
        return rates


def per_second(call: Callable[[], Any], seconds: float = 2.0) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - start)
