"""What MLR's decoder learns from a frozen encoder: do the latents of masked frames still contain the answer?

scripts/decoder.sh RUN_DIR [updates=600] [steps=1500] [untrained=false] [device=auto] [threads=0] [mlr.mask.strategy=temporal ...]
scripts/decoder.sh RUN_DIR logged=true        what a run of MLR itself logged at its last evaluation, its encoder learning with it

RUN_DIR is a finished run of the Atari tree, with or without MLR. The script takes its encoder and head (untrained=true: those of a new
agent) and keeps them and the targets as they are. The run's policy plays, with one random action in ten. Only the parts that MLR adds are
trained, with the settings of the run's preset and those given. All computation is in fp32, on any hardware. It prints

- the frame's share: how much of the variance of the targets' directions is due to the frame. The rest is due to its random shift and
  intensity;
- MLR's loss on windows of games that are not trained on, as the updates go by. own: as it is. other: the decoder is given another
  window's masked frames and actions. constant: the answer is always the mean target.

results=results adds a row to results/decoder.csv, from which scripts/report.sh makes a table.
"""

from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from Atari import settings
from Atari.agents.rainbow import Rainbow
from Atari.core import machine
from Atari.core.errors import UserError, run_main
from Atari.core.method.reconstruction import Reconstruction
from Atari.core.method.sequence import Sequence
from Atari.core.run.config import Config, check_saved
from Atari.core.run.folder import read_config
from Atari.core.run.options import Options
from Atari.env import TRAIN
from Atari.evaluate import load_agent, make_env
from Atari.methods import make_agent
from Atari.replay import Replay
from Atari.train import make_replay
from scripts.ledger.runs import changed
from scripts.probes import measurements
from scripts.trees import ATARI

OWN = {"updates": "600", "steps": "1500", "untrained": "false", "device": "auto", "threads": "0", "logged": "false", "results": ""}
OF_THE_RUN = ("game", "method", "preset", "seed", "replay.capacity", "mlr.tau", "mlr.momentum", "rainbow.hidden", "rainbow.atoms")
VIEWS, WINDOWS, LINES = 16, 64, 6  # views of a frame; windows that are evaluated; lines that are printed
SEED = 20_000


@torch.no_grad()
def share_of_frames(objective: Reconstruction, sequence: Sequence, generator: torch.Generator) -> float:
    """1 - (squared distance from a frame's mean target) / (from the mean of all): unit vectors, on views that the means have not seen."""
    drawn = (objective.augment.draw(len(sequence.obs), sequence.obs.channels, generator) for _ in range(VIEWS))
    targets = torch.stack([F.normalize(objective.target(objective.augment.view(sequence.obs, view)), dim=-1) for view in drawn])
    known, fresh = targets.chunk(2)  # (views, frames, p)
    of_frame, of_all = F.normalize(known.mean(0), dim=-1), F.normalize(known.mean((0, 1)), dim=-1)
    return float(1 - (fresh - of_frame).square().sum() / (fresh - of_all).square().sum())


def play(agent: Rainbow, config: Config, seed: int, steps: int) -> Replay:
    env, replay = make_env(config, seed, TRAIN), make_replay(config, agent)
    replay.generator = torch.Generator(agent.device).manual_seed(seed)
    replay.start(env.reset())
    for _ in range(steps):
        action = ATARI.act(agent, replay.newest(), explore=False)
        result = env.step(action)
        replay.add(action, result)
        if result.over:
            replay.start(env.reset())
    return replay


def logged(run: Path) -> tuple[int, dict[str, float]]:
    """The frame of a run's last evaluation, and MLR's losses there, from its TensorBoard file."""
    events = EventAccumulator(str(run))
    events.Reload()
    tags = [f"mlr/loss_{name}" for name in measurements.LOSSES]
    if not set(tags) <= set(events.Tags()["scalars"]):
        raise UserError(f"{run} has logged no {tags[0]}: say a run of method=mlr")
    last = [events.Scalars(tag)[-1] for tag in tags]
    return last[0].step, {tag: scalar.value for tag, scalar in zip(tags, last, strict=True)}


def describe(seen: dict[str, float]) -> str:
    return ", ".join(f"{name} {seen[f'mlr/loss_{name}']:.4f}" for name in measurements.LOSSES)


def keep(results: str, saved: Config, seen: dict[str, float], **what: str) -> None:
    """A row of results/decoder.csv, if asked for."""
    if not results:
        return
    row = {key: str(saved[key]) for key in ("game", "preset", "method", "name", "seed")} | {"frame_share": ""} | what
    row |= {name: f"{seen[f'mlr/loss_{name}']:.4f}" for name in measurements.LOSSES}
    print(f"written: {measurements.DECODER.replace(Path(results), [row])}")


def report_logged(run: Path, saved: Config, results: str) -> None:
    """MLR's losses as the run itself logged them."""
    frame, seen = logged(run)
    print(f"{run}, at {frame:,} frames: {describe(seen)}")
    keep(results, saved, seen, trained=measurements.IN_THE_RUN, settings=changed(ATARI, saved), after=f"{frame:,} frames")


def settings_for(saved: Config, steps: int, rest: list[str]) -> Config:
    """MLR with the run's encoder and environment, its preset and what was typed."""
    for key in (a.partition("=")[0] for a in rest):
        if key in OF_THE_RUN or key.startswith(("encoder.", "env.")):
            raise UserError(f"key {key} is the run's: it cannot be set here")
    given = [f"game={saved.game}", "method=mlr", f"preset={saved.preset}", f"seed={saved.seed}", f"replay.capacity={steps}"]
    config = settings.read_config([*given, "mlr.tau=1", *rest])
    config["encoder"], config["env"] = saved.encoder, saved.env
    config["rainbow"] |= {key: saved.rainbow[key] for key in ("hidden", "atoms")}
    return config


def prepare(run: Path, saved: Config, config: Config, untrained: bool, precision: machine.Precision) -> Rainbow:
    """MLR's agent around the run's encoder and head, or around freshly drawn ones; both are frozen from now on."""
    n_actions = make_env(config, saved.seed, TRAIN).n_actions
    agent = make_agent(config, n_actions, precision)
    if not untrained:
        player, _ = load_agent(run, saved, n_actions, precision)
        agent.network.load_state_dict(player.network.state_dict())
    agent.objective.move_targets()  # with tau 1: the targets are what the encoder is
    for p in agent.network.parameters():
        p.requires_grad_(False)
    return agent


def train(agent: Rainbow, config: Config, replay: Replay, fresh: Sequence, updates: int, generator: torch.Generator) -> dict[str, float]:
    """Train the parts that MLR adds; print its losses on fresh windows as the updates go by, and return the last."""
    objective = agent.objective
    optimizer = torch.optim.Adam(list(objective.trained()), config.mlr.lr or config.rainbow.lr, eps=config.rainbow.adam_eps)
    for update in range(updates + 1):
        if update % max(1, updates // LINES) == 0:
            seen = objective.diagnose(fresh, torch.Generator(agent.device).manual_seed(SEED))[0]
            print(f"update {update:5}: {describe(seen)}", flush=True)
        if update == updates:
            break
        optimizer.zero_grad()
        for part in objective.parts(replay.sample(config.rainbow.batch_size, 1.0).sequence, generator):
            (objective.loss(part)[0].sum() / config.rainbow.batch_size).backward()
        optimizer.step()
    return seen


def main(arguments: list[str]) -> int:
    mine = [a for a in arguments if "=" not in a or a.partition("=")[0] in OWN]
    options = Options(mine, OWN, words=True)
    updates, steps, untrained = options.whole("updates"), options.whole("steps", 200), options.flag("untrained")
    if len(options.words) != 1:
        raise UserError("say which run: scripts/decoder.sh runs/atari/<game>/<method>-<preset>/seed<k>")
    run = Path(options.words[0])
    saved = read_config(run)
    if "game" not in saved:
        raise UserError(f"{run} is no run of the Atari tree")
    check_saved(saved, settings.CONFIGS, settings.RANGES, run / "config.yaml")
    rest, results = [a for a in arguments if a not in mine], options["results"]
    if results:
        measurements.DECODER.read(Path(results))  # so that an error in it comes before the measurement
    if options.flag("logged"):
        if rest:
            raise UserError(f"{rest[0]} has no effect with logged=true: the run has its settings")
        report_logged(run, saved, results)
        return 0
    config = settings_for(saved, steps, rest)
    config["eval"]["epsilon"] = 1.0 if untrained else 0.1
    precision = machine.choose_precision("fp32", machine.choose_device(options["device"]))
    machine.set_threads(options.whole("threads", 0, 1024))
    agent, generator = prepare(run, saved, config, untrained, precision), torch.Generator(precision.device).manual_seed(SEED)
    replay = play(agent, config, SEED, steps)
    if config.encoder.centre:
        agent.take_centre(replay)
    fresh = play(agent, config, SEED + 1, steps).sample(WINDOWS, 1.0).sequence
    print(f"{saved.game}, {'an untrained encoder' if untrained else run}:")
    share = f"{share_of_frames(agent.objective, fresh, generator):.2f}"
    print(f"targets: {share} of their variance due to the frame, the rest to the view", flush=True)
    seen = train(agent, config, replay, fresh, updates, generator)
    trained = measurements.APART_UNTRAINED if untrained else measurements.APART
    keep(results, saved, seen, trained=trained, settings=" ".join(rest), after=f"{updates:,} updates", frame_share=share)
    return 0


if __name__ == "__main__":
    run_main(main)
