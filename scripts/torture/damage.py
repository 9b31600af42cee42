"""Faults in what a run holds: its saves, its numbers, its environment."""

import dataclasses
import hashlib
import json
import math
import pickle
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from DMControl.core.run.checkpoint import _manifest_checksum, checksum
from scripts.torture.comparison import differences, newest_step, saved_state, saves
from scripts.torture.process import SAVING, Result, Setup, TrainingProcess, check_error, check_exit, check_resume, finish


def stopped_training(setup: Setup, folder: Path, count: int) -> TrainingProcess:
    """A training that a signal stopped at its save of that number."""
    training = TrainingProcess(setup, folder)
    training.wait_for(SAVING, count)
    training.send(signal.SIGTERM)
    training.wait()
    return training


def damaged_saves(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """Bytes flipped or cut off: first in the newest save, which leaves an older one; then in all of them."""
    results, files = [], ("agent.pt", "state.pt", "manifest.json")
    for damage in (truncate, flip_bits):
        newest, every = Result(f"newest save, {damage.__doc__}"), Result(f"every save, {damage.__doc__}")
        for number in range(count):
            folder = runs / f"newest-{damage.__name__}{number}"
            run = stopped_training(setup, folder, 4).run
            damaged, older = saves(run)[:2]
            damage(damaged / dice.choice(files), dice)
            again = TrainingProcess(setup, folder)
            again.wait()
            problems = check_exit(again, 0)
            if f"passed over {damaged.name}" not in again.output or f"using {older.name}" not in again.output:
                problems.append("the output does not say which save was used")
            newest.record(problems or differences(run, setup.reference))
            folder = runs / f"every-{damage.__name__}{number}"
            run = stopped_training(setup, folder, 3).run
            for save in saves(run):
                damage(save / dice.choice(files), dice)
            before = checksums(run)
            again = TrainingProcess(setup, folder)
            again.wait()
            problems = check_error(again, 2, "no sound checkpoint")
            every.record(problems + ([] if checksums(run) == before else ["files were changed"]))
        results += [newest, every]
    return [*results, damaged_frames(setup, runs, count, dice)]


def damaged_frames(setup: Setup, runs: Path, count: int, dice: random.Random) -> Result:
    """A file of frames, which the saves share: a save that needs it is not used."""
    result = Result("a frame file with flipped bits")
    for number in range(count):
        folder = runs / f"frames{number}"
        run = stopped_training(setup, folder, 3).run
        flip_bits(dice.choice(sorted((run / "checkpoint/frames").iterdir())), dice)
        before = checksums(run)
        again = TrainingProcess(setup, folder)
        if again.wait() == 0:  # the older save does not need it
            result.record(differences(run, setup.reference) if "passed over" in again.output else ["the damage went unnoticed"])
        else:
            result.record(check_error(again, 2, "no sound checkpoint") + ([] if checksums(run) == before else ["files were changed"]))
    return result


def truncate(file: Path, dice: random.Random) -> None:
    """truncated"""
    data = file.read_bytes()
    file.write_bytes(data[: dice.randrange(len(data))])


def flip_bits(file: Path, dice: random.Random) -> None:
    """flipped bits"""
    data = bytearray(file.read_bytes())
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)


def checksums(run: Path) -> dict[str, str]:
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in run.rglob("*") if p.is_file()}


def not_finite(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """A reward that is not a number; a gradient that is infinite while its loss is finite."""
    results = []
    for kind, plant in (("loss", spoil_reward), ("gradient", spoil_gradient)):
        result = Result(f"NaN or infinity in a {kind}")
        for number in range(count):
            folder, update, value = runs / f"nan-{kind}{number}", dice.randint(5, 60), dice.choice((math.nan, math.inf))
            if kind == "loss" and setup.tree.name == "atari":
                value = math.nan  # an infinite return is clamped to the last atom
            training = TrainingProcess(setup, folder, prepare=lambda u=update, v=value, plant=plant: plant(setup, u, v))
            training.wait()
            pattern = rf"(loss/\w+|grad/\w+)=(nan|inf).* at step .*, update {update}: its batch is in "
            problems = check_error(training, 1, pattern) + check_inspection(training.run, update, kind)
            for name, tensor in saved_state(training.run).items() if newest_step(training.run) is not None else ():
                if isinstance(tensor, torch.Tensor) and not torch.isfinite(tensor.double()).all():
                    problems.append(f"the save holds {name} that is not finite")
            result.record(problems + finish(setup, folder))
        results.append(result)
    return results


def check_inspection(run: Path, update: int, kind: str) -> list[str]:
    """The batch of that update must have been kept, with what was wrong in it."""
    kept = list((run / "inspect").glob("*.pt"))
    if len(kept) != 1:
        return ["no batch was kept"]
    found = torch.load(kept[0], weights_only=True)
    batch = found["batch"]
    wrong = found["update"] != update or not batch["obs"]["frames"].numel()
    wrong |= kind == "loss" and bool(torch.isfinite(batch.get("reward", batch.get("return_n"))).all())
    return ["the batch is another one"] if wrong else []


def when_open(setup: Setup, change: Callable[[Any], None]) -> None:
    """Call change(trainer) once agent and replay stand."""
    trainer = setup.tree.load("train").Trainer
    begin = trainer.open

    def opened(self: Any, *arguments: Any) -> Any:
        change(self)
        return begin(self, *arguments)

    trainer.open = opened


def spoil_reward(setup: Setup, number: int, value: float) -> None:
    """A value that is not finite among the rewards of that update's batch."""

    def change(trainer: Any) -> None:
        agent, replay = trainer.agent, trainer.replay
        real_update, real_sample = agent.update, replay.sample

        def sample(*arguments: Any) -> Any:
            batch = real_sample(*arguments)
            key = "reward" if hasattr(batch, "reward") else "return_n"
            spoilt = getattr(batch, key).clone()
            spoilt.view(-1)[0] = value
            return dataclasses.replace(batch, **{key: spoilt})

        def update(*arguments: Any) -> Any:
            replay.sample = sample if agent.updates == number - 1 else real_sample
            try:
                return real_update(*arguments)
            finally:
                replay.sample = real_sample  # an evaluation draws as well

        agent.update = update

    when_open(setup, change)


def spoil_gradient(setup: Setup, number: int, value: float) -> None:
    """A value that is not finite in one gradient of that update; the losses stay as they are."""

    def change(trainer: Any) -> None:
        agent = trainer.agent
        layer = agent.critic.q2[0] if hasattr(agent, "critic") else agent.network.head.value.mean

        def spoilt(gradient: torch.Tensor) -> torch.Tensor:
            if agent.updates == number - 1:
                gradient = gradient.clone()
                gradient.view(-1)[0] = value
            return gradient

        layer.weight.register_hook(spoilt)

    when_open(setup, change)


def crash(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """The simulator or the renderer raises an error or does not answer, a few times; or it fails again and again."""
    few, hangs, many = Result("environment or renderer crash"), Result("an environment that hangs"), Result("more crashes than allowed")
    for number in range(count):
        for result, fault in ((few, vanish), (hangs, hang)):
            folder, calls = runs / f"{fault.__name__}{number}", sorted(dice.sample(range(2, 400), 1 if fault is hang else 3))
            prepare = lambda calls=calls, fault=fault: crash_at(setup, calls, fault)  # noqa: E731
            training = TrainingProcess(setup, folder, ("env_timeout=5",) if fault is hang else (), prepare=prepare)
            training.wait()
            problems = check_exit(training, 0)
            if not problems:
                reported = training.output.count("the environment crashed at step")
                if reported != len(calls) or f"restart {reported} of at most 10" not in training.output:
                    problems.append(f"{reported} crashes were reported, {len(calls)} happened")
                if (training.run / "crash.log").read_text().count("Traceback") < len(calls):
                    problems.append("crash.log lacks a traceback")
                problems += differences(training.run, setup.reference)
            result.record(problems)
        folder, start = runs / f"crashes{number}", dice.randint(2, 300)
        calls = list(range(start, start + 1000))
        training = TrainingProcess(setup, folder, ("env_restarts=2",), prepare=lambda calls=calls: crash_at(setup, calls, vanish))
        training.wait()
        many.record(check_error(training, 1, "crashed 3 times") + finish(setup, folder))
    return [few, hangs, many]


def vanish() -> None:
    raise RuntimeError("the renderer is gone")


def hang() -> None:
    time.sleep(3600)


def crash_at(setup: Setup, numbers: list[int], fault: Callable[[], None]) -> None:
    """The calls of the simulator and the renderer with these numbers fail."""
    env, calls = setup.tree.load("env").Env, [0]

    def failing(real: Callable) -> Callable:
        def call(self: Any, *arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] in numbers:
                fault()
            return real(self, *arguments)

        return call

    for name in ("_advance", "_frame" if hasattr(env, "_frame") else "render"):
        setattr(env, name, failing(getattr(env, name)))


def surroundings(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """The clock jumps; a resume gets another number of threads, and may then differ in the last bits."""
    clock, threads = Result("a clock that jumps"), Result("a resume on two threads")
    for number in range(count):
        seed = dice.random()
        training = TrainingProcess(setup, runs / f"clock{number}", prepare=lambda seed=seed: jump(random.Random(seed)))
        training.wait()
        clock.record(check_exit(training, 0) or differences(training.run, setup.reference))
        folder = runs / f"threads{number}"
        saved = newest_step(stopped_training(setup, folder, 2).run)
        again = TrainingProcess(setup, folder, ("threads=2",))
        again.wait()
        problems = check_exit(again, 0) + check_resume(again, saved)
        rows, wanted = ((run / "train.csv").read_text().count("\n") for run in (again.run, setup.reference))
        threads.record(problems + ([] if rows == wanted else [f"train.csv has {rows} rows in place of {wanted}"]))
    return [clock, threads]


def jump(dice: random.Random) -> None:
    """The time of day goes hours back and forth."""
    real = time.time
    time.time = lambda: real() + dice.uniform(-1e5, 1e5)


class Command:
    """Unpickled, it writes a file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (open, (self.file, "w"))


def crafted_pickle(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """A pickle with a command inside, in a save whose checksums are right."""
    result = Result("a crafted pickle in place of a save")
    for number in range(count):
        folder = runs / f"crafted{number}"
        written = folder / "the pickle was run"
        for save in saves(stopped_training(setup, folder, 2).run):
            file = save / dice.choice(("agent.pt", "state.pt"))
            if dice.random() < 0.5:
                torch.save({"w": Command(str(written))}, file)
            else:
                file.write_bytes(pickle.dumps(Command(str(written))))
            manifest = json.loads((save / "manifest.json").read_text())
            manifest["files"][file.name] = checksum(file)
            manifest.pop("sha256")
            (save / "manifest.json").write_text(json.dumps({"sha256": _manifest_checksum(manifest), **manifest}))
        again = TrainingProcess(setup, folder)
        again.wait()
        result.record(check_error(again, 2, "no sound checkpoint") + (["it was run"] if written.exists() else []))
    return [result]
