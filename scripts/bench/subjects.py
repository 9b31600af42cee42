"""What scripts/bench.py measures: an agent of either tree with a filled replay, its update by a clock of parts, its environment."""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from DMControl.core import machine
from scripts.bench.flops import atari_flops, dmcontrol_flops


class Clock:
    """Exclusive time per part: a part that runs inside another one is taken out of it. The GPU is timed with events."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.stack: list[str] = []
        self.marks: list[tuple[str, Any]] = []

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
        self.marks.append((self.stack[-1] if self.stack else "", self.now()))
        self.stack.append(part)

    def leave(self) -> None:
        self.marks.append((self.stack.pop(), self.now()))

    def read(self) -> dict[str, float]:
        """Milliseconds per part since the last reading."""
        if self.cuda:
            torch.cuda.synchronize()
        spent: dict[str, float] = {}
        for (_, before), (part, after) in zip(self.marks, self.marks[1:], strict=False):
            took = before.elapsed_time(after) if self.cuda else (after - before) * 1e3
            spent[part] = spent.get(part, 0.0) + took
        self.marks = []
        return spent


class DMControlBench:
    name = "DMControl"

    def __init__(self, arguments: list[str]) -> None:
        from DMControl.env import TRAIN, Env
        from DMControl.memory import updates
        from DMControl.methods import make_agent
        from DMControl.replay import Replay
        from DMControl.settings import read_config

        self.config = config = read_config(["task=cheetah_run", "env_steps=400000", *arguments])
        self.device = machine.choose_device(config.device)
        self.precision = machine.choose_precision(config.precision, self.device)
        machine.set_threads(config.threads)
        image = config.image
        self.env = Env(config.task, config.action_repeat, image.size, image.shadows, 0, TRAIN)
        self.agent = make_agent(config, self.env.action_dim, self.precision)
        capacity = min(config.replay.capacity, -(-config.env_steps // config.action_repeat))
        self.replay = Replay(
            capacity, self.env.episode_length, image.stack, image.size, self.env.action_dim, self.device, self.agent.generator
        )
        rng, frame = np.random.default_rng(0), self.env.reset()
        while len(self.replay) < capacity:
            self.replay.start(frame)
            for t in range(self.env.episode_length):
                self.replay.add(
                    rng.uniform(-1, 1, self.env.action_dim).astype(np.float32), 0.0, False, t == self.env.episode_length - 1, frame
                )
        self.flops = dmcontrol_flops(config, self.env.action_dim)
        steps = -(-100_000 // config.action_repeat)
        self.label, self.run_steps, self.run_updates = config.task, steps, updates(config, steps)

    def update(self) -> None:
        self.agent.update(self.replay)

    def parts(self, clock: Clock) -> None:
        agent = self.agent
        for name in ("sample", "sample_windows"):
            clock.wrap(self.replay, name, "sample")
        augments = [agent.augment] + ([agent.objective.augment] if agent.objective is not None else [])
        for augment in augments:
            clock.wrap(augment, "view", "augment")
            clock.wrap(augment, "draw", "augment")
        clock.wrap(agent, "update_critic", "rl loss")
        clock.wrap(agent, "update_actor", "actor")
        clock.wrap(agent.momentum, "step", "ema")
        for optimizer in agent._optimizers().values():
            clock.wrap(optimizer, "step", "optimiser")
            clock.wrap(optimizer, "zero_grad", "optimiser")
        if agent.objective is not None:
            clock.wrap(agent, "update_objective", "mlr backward")
            clock.wrap(agent.objective, "loss", "mlr forward")
            clock.wrap(agent.objective, "after_step", "ema")
        clock.wrap(agent.critic_loss, "after_update", "auxiliary")
        if hasattr(agent.critic_loss, "strong"):
            clock.wrap(agent.critic_loss.strong, "view", "augment")
            clock.wrap(agent.critic_loss.strong, "draw", "augment")
        if agent.critic_loss.front is not None:
            clock.wrap(agent.critic_loss, "see", "masker forward")

    def worlds(self) -> dict[str, float]:
        """Steps and resets per second in each world that the configuration judges in."""
        from DMControl.env import EVALUATE
        from DMControl.evaluate import make_env
        from DMControl.worlds.catalogue import world_names

        out, action = {}, np.zeros(self.env.action_dim, np.float32)
        for world in world_names(["clean", *self.config.eval.worlds], self.config.eval.intensities) if self.config.eval.worlds else []:
            env = make_env(self.config, 0, EVALUATE, world)
            env.reset()
            out[f"reset in {world}"] = per_second(env.reset)
            out[f"step in {world}"] = per_second(lambda env=env: env.reset() if env.over else env.step(action))
            env.close()
        return out

    def environment(self) -> dict[str, float]:
        action = np.zeros(self.env.action_dim, np.float32)
        self.env.reset()
        render = per_second(self.env.render)
        own = {"render": render, "step with render": per_second(lambda: self.env.reset() if self.env.over else self.env.step(action))}
        return self.worlds() | own


class AtariBench:
    name = "Atari"

    def __init__(self, arguments: list[str]) -> None:
        from Atari.env import TRAIN
        from Atari.evaluate import make_env
        from Atari.methods import make_agent
        from Atari.settings import read_config
        from Atari.train import make_replay

        self.config = config = read_config(["game=alien", *arguments])
        self.device = machine.choose_device(config.device)
        self.precision = machine.choose_precision(config.precision, self.device)
        machine.set_threads(config.threads)
        self.env = make_env(config, 0, TRAIN)
        self.agent = make_agent(config, self.env.n_actions, self.precision)
        self.replay = make_replay(config, self.device, self.agent.generator)
        self.replay.start(self.env.reset())
        rng = np.random.default_rng(0)
        for _ in range(2000):
            action = int(rng.integers(self.env.n_actions))
            result = self.env.step(action)
            self.replay.add(action, result)
            if result.over:
                self.replay.start(self.env.reset())
        self.flops = atari_flops(config, self.agent)
        r = config.rainbow
        self.label, self.run_steps = config.game, 100_000
        self.run_updates = (self.run_steps - r.random_steps) * r.updates_per_step // r.update_every

    def update(self) -> None:
        self.agent.update(self.replay, 50_000)

    def parts(self, clock: Clock) -> None:
        agent = self.agent
        for name in ("sample", "update_priorities"):
            clock.wrap(self.replay, name, "sample")
        clock.wrap(agent.augment, "view", "augment")
        clock.wrap(agent.augment, "draw", "augment")
        clock.wrap(agent, "rl_loss", "rl loss")
        clock.wrap(agent, "take_step", "optimiser")
        clock.wrap(agent.optimizer, "zero_grad", "optimiser")
        clock.wrap(agent, "copy_to_target", "ema")
        if agent.objective is not None:
            clock.wrap(agent, "objective_gradient", "mlr backward")
            clock.wrap(agent.objective, "loss", "mlr forward")
            clock.wrap(agent.objective, "after_step", "ema")

    def environment(self) -> dict[str, float]:
        return {"step": per_second(lambda: self.env.reset() if self.env.over else self.env.step(0))}


def per_second(work: Callable[[], Any], seconds: float = 2.0) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)
