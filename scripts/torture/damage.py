"""Faults of scripts/torture.py in what a run holds: its saves, its numbers, its environment."""

import dataclasses
import hashlib
import json
import math
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.torture.process import SAVING, Row, Tree, Victim, differences, finish, newest_step, one_line, saves, state


def stopped(tree: Tree, folder: Path, count: int) -> Victim:
    """A run that was stopped by a signal at its save of that number."""
    victim = Victim(tree, folder)
    victim.reach(SAVING, count)
    victim.send(signal.SIGTERM)
    victim.wait()
    return victim


def damage(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """Bytes flipped or cut off in the newest save, then in all of them."""
    table = []
    for how in ("truncated", "with flipped bytes"):
        one, none = Row(f"newest save {how}"), Row(f"every save {how}")
        for number in range(count):
            folder = runs / f"damage-{how.split()[0]}{number}"
            victim = stopped(tree, folder, 4)
            files = ("agent.pt", "state.pt", "manifest.json")
            newest, older = saves(victim.run)[:2]
            _harm(newest / dice.choice(files), how, dice)
            again = Victim(tree, folder)
            wrong = [] if again.wait() == 0 else [f"exit code {again.code}: {again.said[-200:]}"]
            wrong += [] if f"passed over {newest.name}" in again.said and f"using {older.name}" in again.said else ["it was not said"]
            one.note(wrong + (differences(victim.run, tree.reference) if not wrong else []))
            folder = runs / f"ruin-{how.split()[0]}{number}"
            victim = stopped(tree, folder, 3)
            for save in saves(victim.run):
                _harm(save / dice.choice(files), how, dice)
            before = contents(victim.run)
            again = Victim(tree, folder)
            again.wait()
            wrong = one_line(again, 2, "no sound checkpoint")
            none.note(wrong + ([] if contents(victim.run) == before else ["files were changed"]))
        table += [one, none]
    return table


def _harm(file: Path, how: str, dice: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if how == "truncated":
        data = data[: dice.randrange(len(data))]
    else:
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)


def contents(run: Path) -> dict[str, str]:
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in run.rglob("*") if p.is_file()}


def not_finite(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """A reward that is not a number; a gradient that is infinite while its loss is finite."""
    import torch

    table = []
    for kind in ("loss", "gradient"):
        row = Row(f"NaN or infinity in a {kind}")
        for number in range(count):
            folder, when, value = runs / f"nan-{kind}{number}", dice.randint(5, 60), dice.choice((math.nan, math.inf))
            if kind == "loss" and tree.name == "Atari":
                value = math.nan  # an infinite return is clamped to the last atom
            poison = _poisoned_reward if kind == "loss" else _poisoned_gradient
            victim = Victim(tree, folder, prepare=lambda when=when, value=value, poison=poison: poison(tree, when, value))
            victim.wait()
            wrong = one_line(victim, 1, rf"(loss/\w+|grad/\w+)=(nan|inf).* at step .*, update {when}: its batch is in ")
            kept = list((victim.run / "inspect").glob("*.pt"))
            if len(kept) != 1:
                wrong.append("no batch was kept")
            else:
                found = torch.load(kept[0], weights_only=True)
                reward = found["batch"].get("reward", found["batch"].get("return_n"))
                wrong += [] if found["update"] == when and found["batch"]["obs"]["frames"].numel() else ["the batch is another one"]
                if kind == "loss" and torch.isfinite(reward).all():
                    wrong.append("the batch is another one")
            for name, tensor in state(victim.run).items() if newest_step(victim.run) is not None else ():
                if isinstance(tensor, torch.Tensor) and not torch.isfinite(tensor.double()).all():
                    wrong.append(f"the save holds {name} that is not finite")
            row.note(wrong + finish(tree, folder))
        table.append(row)
    return table


def _poisoned_reward(tree: Tree, when: int, value: float) -> None:
    replay = sys.modules[tree.train.__name__.replace("train", "replay")].Replay
    real, calls = replay.sample, []

    def sample(self: Any, *arguments: Any) -> Any:
        batch = real(self, *arguments)
        calls.append(1)
        if len(calls) == when:
            key = "reward" if hasattr(batch, "reward") else "return_n"
            harmed = getattr(batch, key).clone()
            harmed.view(-1)[0] = value
            batch = dataclasses.replace(batch, **{key: harmed})
            self.drawn = {"batch": batch}
        return batch

    if tree.name == "Atari":  # pictures draw as well: count the updates alone
        agent = sys.modules["Atari.rainbow"].Rainbow
        update = agent.update

        def counted(self: Any, source: Any, step: int) -> Any:
            source.sample = lambda *a: sample(source, *a)
            try:
                return update(self, source, step)
            finally:
                del source.sample

        agent.update = counted
    else:
        replay.sample = sample


def _poisoned_gradient(tree: Tree, when: int, value: float) -> None:
    """Only the backward pass is harmed."""
    trainer = tree.train.Trainer
    begin = trainer.open

    def harmed(self: Any, *arguments: Any) -> Any:
        agent = self.agent
        layer = agent.critic.q2[0] if hasattr(agent, "critic") else agent.network.head.value.mean
        layer.weight.register_hook(lambda g: torch_full(g, value) if agent.updates == when - 1 else g)
        return begin(self, *arguments)

    trainer.open = harmed


def torch_full(like: Any, value: float) -> Any:
    out = like.clone()
    out.view(-1)[0] = value
    return out


def crash(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """The simulator or the renderer raises an error, some times or again and again."""
    some, often = Row("environment or renderer crash"), Row("more crashes than allowed")
    for number in range(count):
        folder, moments = runs / f"crash{number}", sorted(dice.sample(range(2, 400), 3))
        victim = Victim(tree, folder, prepare=lambda moments=moments: _crashes(tree, moments))
        wrong = [] if victim.wait() == 0 else [f"exit code {victim.code}: {victim.said[-300:]}"]
        if not wrong:
            told = victim.said.count("the environment crashed at step")
            wrong += [] if told == 3 and "restart 3 of at most 10" in victim.said else [f"{told} crashes were told, 3 happened"]
            wrong += [] if (victim.run / "crash.log").read_text().count("Traceback") >= 3 else ["crash.log is short"]
            wrong += differences(victim.run, tree.reference)
        some.note(wrong)
        folder, start = runs / f"crashes{number}", dice.randint(2, 300)
        victim = Victim(tree, folder, ("env_restarts=2",), prepare=lambda start=start: _crashes(tree, list(range(start, start + 1000))))
        victim.wait()
        often.note(one_line(victim, 1, "crashed 3 times") + finish(tree, folder))
    return [some, often]


def _crashes(tree: Tree, moments: list[int]) -> None:
    env = sys.modules[tree.train.__name__.replace("train", "env")].Env
    calls = [0]

    def harmed(real: Callable) -> Callable:
        def call(self: Any, *arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] in moments:
                raise RuntimeError("the renderer is gone")
            return real(self, *arguments)

        return call

    for name in ("_advance", "_frame" if tree.name == "Atari" else "render"):
        setattr(env, name, harmed(getattr(env, name)))


class Bomb:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (open, (self.mark, "w"))


def crafted(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """A pickle with a command inside, its checksum put right."""
    import pickle

    import torch

    from DMControl.core.run.checkpoint import _seal, checksum

    row = Row("a crafted pickle in place of a save")
    for number in range(count):
        folder = runs / f"crafted{number}"
        victim = stopped(tree, folder, 2)
        mark = folder / "the pickle was run"
        for save in saves(victim.run):
            file = save / dice.choice(("agent.pt", "state.pt"))
            if dice.random() < 0.5:
                torch.save({"w": Bomb(str(mark))}, file)
            else:
                file.write_bytes(pickle.dumps(Bomb(str(mark))))
            manifest = json.loads((save / "manifest.json").read_text())
            manifest["files"][file.name] = checksum(file)
            manifest.pop("sha256")
            (save / "manifest.json").write_text(json.dumps({"sha256": _seal(manifest), **manifest}))
        again = Victim(tree, folder)
        again.wait()
        row.note(one_line(again, 2, "no sound checkpoint") + (["it was run"] if mark.exists() else []))
    return [row]
