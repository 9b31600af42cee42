"""What an encoder knows: how much of the simulator's state a linear map reads from its latents.

scripts/readout.sh RUN_DIR ... [results=results] [device=auto] [threads=0]

Runs of the same task and preset are compared on the same frames: 72 episodes of at most 1,000 steps in the clean world. The runs'
policies play them in turn; half of the time actions are random. A ridge regression from latents to state is fitted on the first third of
the episodes, its strength is chosen on the second third, and its R² is measured on the last. All computation is in fp32, on any hardware.
A row holds

- r2: the mean over the quantities of the state, where less than 0 counts as 0. The state is the task's own vector on DMControl and the
  console's memory, byte by byte, on Atari. Quantities with fewer than 8 values in a third are left out;
- rank: the effective rank of the latents in the last third, exp(entropy of their principal variances). It is 1 when they all lie on a
  line;
- MLR's loss on a window of each episode of the last third. own: as it is. other: the decoder is given other windows' masked frames and
  actions. constant: the answer is always the mean target.

Encoders before any training get rows too. Name all runs of a task in one call: its rows replace all that results/readout.csv has of that
task and preset. scripts/report.sh shows the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from DMControl.core import machine
from DMControl.core.errors import UserError, run_main
from DMControl.core.method.frames import Frames
from DMControl.core.method.sequence import Sequence
from DMControl.core.run.config import Config, check_saved
from DMControl.core.run.folder import read_config
from DMControl.core.run.options import Options
from scripts.ledger.rows import Row
from scripts.probes import measurements
from scripts.trees import ATARI, Tree, tree_of

ROOT = Path(__file__).resolve().parents[2]

SEED = 20_000  # of the episodes; no run is trained or judged with it unless told to
PARTS, EPISODES = 3, 24  # fit, choose, test; episodes of each, however many runs there are
LONGEST, KEPT = 1000, 100  # at most: steps of an episode, and frames kept of it
MASKS = 8  # masks through which MLR's windows are seen
STRETCH = 8  # steps that are either all random or all the policy's
VALUES = 8  # different values that a quantity must take in each part
STRENGTHS = np.logspace(-7, 0, 15)  # of the ridge, in units of the latents' summed squares


SHARED = {"dmcontrol": ("image", "action_repeat"), "atari": ("env",)}  # settings in which all runs of a task must agree


class Source:
    """Episodes of a task in the clean world, and the policies and latents of its agents."""

    def __init__(self, tree: Tree, config: Config, precision: machine.Precision) -> None:
        self.tree, self.precision = tree, precision
        self.benchmark, self.task = tree.name, config[tree.task]
        self.env = tree.make_env(config, SEED, judge=True, clean=True)
        self.stack = tree.make_stack(config, precision.device)
        self.elsewhere: dict[Any, bool] = {}  # whether an agent was trained in a world other than the clean one

    def load(self, run: Path, config: Config) -> tuple[Any, int]:
        """The agent of a run, and how many simulator steps it was trained for."""
        agent, step = self.tree.load_agent(run, config, self.env, self.precision)
        self.elsewhere[agent] = self.tree.distracts(config)
        return agent, step * self.tree.repeat(config)

    def untrained(self, config: Config) -> Any:
        agent = self.tree.make_agent(self.tree.for_acting(config), self.env, self.precision)
        self.elsewhere[agent] = self.tree.distracts(config)
        return agent

    def start(self, episode: int) -> None:
        self.stack.start(self.env.reset(episode))

    def observation(self) -> Frames:
        return self.tree.observation(self.stack, self.precision.device)

    def choose(self, agent: Any) -> Any:
        return self.tree.act(agent, self.observation(), explore=False, elsewhere=self.elsewhere[agent])

    def random(self, rng: np.random.Generator) -> Any:
        return self.tree.random_action(self.env, rng)

    def follow(self, action: Any) -> None:
        self.tree.push(self.stack, self.env.step(action))

    def state(self) -> dict[str, float]:
        """On DMControl the task's own state vector, on Atari the bytes of the console's memory."""
        if self.tree is ATARI:
            return {f"byte{i}": float(value) for i, value in enumerate(self.env.ale.getRAM())}
        seen = self.env.inner.task.get_observation(self.env.inner.physics)
        return {f"{key}{i}": value for key, values in seen.items() for i, value in enumerate(np.ravel(values))}

    def latent(self, agent: Any, images: Tensor) -> Tensor:
        """(N, d): on Atari what the head reads; on DMControl what the Q functions read and MLR trains."""
        if self.tree is ATARI:
            return agent.network.encoder(agent.pixels(images, self.elsewhere[agent]))
        return agent.critic.encoder(agent.pixels(Frames.of_images(images).centre_crop(agent.crop), self.elsewhere[agent]))


def play(source: Source, agent: Any, episode: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, dict[str, float], Any]]:
    """Observation (1, S*C, H, W), state and action of every step of an episode; half of its stretches are random."""
    source.start(episode)
    random = (rng.random(LONGEST // STRETCH) < 0.5).repeat(STRETCH)  # of each step
    for at_random in random:
        image, state = source.observation().whole(), source.state()
        action = source.random(rng) if at_random else source.choose(agent)
        yield image, state, action
        source.follow(action)
        if source.env.over:
            return


@dataclass
class Seen:
    """What the episodes showed, part by part."""

    images: list[Tensor]  # of each part (n, S*C, H, W) uint8
    states: list[np.ndarray]  # of each part (n, quantities)
    names: list[str]  # of the quantities
    stretches: list[tuple[Tensor, Tensor]]  # of the last part's episodes: consecutive observations and actions, from anywhere in it


def collect(source: Source, agents: list[Any]) -> Seen:
    images, states, names, stretches = [], [], [], []
    length = max((agent.objective.window for agent in agents if has_mlr(agent)), default=0)
    for part in range(PARTS):
        seen, known = [], []
        for number in range(part * EPISODES, (part + 1) * EPISODES):
            steps = list(play(source, agents[number % len(agents)], number, np.random.default_rng((SEED, number))))
            for i in np.unique(np.linspace(0, len(steps) - 1, KEPT).astype(int)):
                seen.append(steps[i][0].cpu())
                known.append(list(steps[i][1].values()))
                names = list(steps[i][1])
            if part == PARTS - 1 and 0 < length <= len(steps):
                start = np.random.default_rng((SEED, number, 1)).integers(len(steps) - length + 1)
                stretch = steps[start : start + length]
                stretches.append(
                    (torch.cat([image.cpu() for image, _, _ in stretch]), torch.from_numpy(np.array([a for _, _, a in stretch])))
                )
        images.append(torch.cat(seen))
        states.append(np.array(known, np.float64))
    varied = [i for i in range(len(names)) if all(len(np.unique(s[:, i])) >= VALUES for s in states)]
    if not varied:
        raise UserError(f"{source.task}: nothing of its state takes {VALUES} values in every part: these episodes are too short")
    return Seen(images, [s[:, varied] for s in states], [names[i] for i in varied], stretches)


def readout(latents: list[np.ndarray], states: list[np.ndarray]) -> np.ndarray:
    """R² of each quantity on the last part: ridge of the first, with the strength that is best on the second, quantity by quantity."""
    mean, centre = latents[0].mean(0), states[0].mean(0)
    fit, choose, test = (z - mean for z in latents)
    left, values, right = (x.numpy() for x in torch.linalg.svd(torch.from_numpy(fit), full_matrices=False))
    inside = left.T @ (states[0] - centre)
    best, found = np.full(states[0].shape[1], -np.inf), np.zeros(states[0].shape[1])
    for strength in STRENGTHS * (values**2).sum():
        shrunk = np.divide(values, values**2 + strength, out=np.zeros_like(values), where=values > 0)
        weights = right.T @ (shrunk[:, None] * inside)
        chosen, tested = (_r2(z @ weights + centre, s) for z, s in ((choose, states[1]), (test, states[2])))
        found = np.where(chosen > best, tested, found)
        best = np.maximum(chosen, best)
    return found


def _r2(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    return 1 - ((predicted - true) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)


def effective_rank(latents: np.ndarray) -> float:
    variances = torch.linalg.svdvals(torch.from_numpy(latents - latents.mean(0))).numpy() ** 2
    share = variances / max(variances.sum(), np.finfo(float).tiny)
    share = share[share > 1e-12]  # less is rounding
    return float(np.exp(-(share * np.log(share)).sum()))


def has_mlr(agent: Any) -> bool:
    return agent.objective is not None and f"mlr/loss_{measurements.LOSSES[0]}" in agent.objective.diagnostics


def answers(agent: Any, stretches: list[tuple[Tensor, Tensor]], device: torch.device) -> dict[str, str]:
    """MLR's loss on a window of each stretch: as it is, with other windows' inputs, of the best constant; nothing where there is no MLR."""
    if not has_mlr(agent) or len(stretches) < 2:
        return dict.fromkeys(measurements.LOSSES, "")
    k = agent.objective.window
    images = torch.cat([image[:k] for image, _ in stretches]).to(device)
    actions = torch.stack([action[:k] for _, action in stretches]).to(device)
    actions = actions.float() if actions.is_floating_point() else actions
    rewards, ones = torch.zeros(len(actions), k, device=device), torch.ones(len(actions), device=device)
    sequence = Sequence(Frames.of_images(images), actions, rewards, rewards, ones, ones)
    generator = torch.Generator(device).manual_seed(SEED)
    found = [agent.objective.diagnose(sequence, generator)[0] for _ in range(MASKS)]
    return {name: f"{sum(f[f'mlr/loss_{name}'] for f in found) / MASKS:.4f}" for name in measurements.LOSSES}


@torch.no_grad()
def compare(source: Source, runs: dict[Path, Config]) -> Iterator[Row]:
    """A row for every run, and one per seed for an encoder before the training: the Baseline's, where there is one."""
    agents = {run: source.load(run, config) for run, config in runs.items()}
    seen = collect(source, [agent for agent, _ in agents.values()])

    def row(agent: Any, config: Config, **own: str) -> Row:
        latents = [torch.cat([source.latent(agent, x.to(source.precision.device)) for x in part.split(256)]) for part in seen.images]
        latents = [z.double().cpu().numpy() for z in latents]
        if not all(np.isfinite(z).all() for z in latents):
            raise UserError(f"{source.task}, {config.method}, seed {config.seed}: its latents are not finite numbers")
        found = readout(latents, seen.states).clip(0)
        return own | {
            "benchmark": source.benchmark, "task": source.task, "preset": config.preset, "seed": str(config.seed),
            "frames": str(sum(map(len, seen.states))), "r2": f"{found.mean():.4f}", "rank": f"{effective_rank(latents[2]):.1f}",
            **answers(agent, seen.stretches, source.precision.device),
            "each": " ".join(f"{name}={value:.2f}" for name, value in zip(seen.names, found, strict=True)),
        }  # fmt: skip

    last_first = sorted(runs.values(), key=lambda c: (c.method == "baseline", not c.name))
    for config in {config.seed: config for config in last_first}.values():
        yield row(source.untrained(config), config, method=measurements.UNTRAINED, name="", step="0")
    for run, config in runs.items():
        agent, step = agents[run]
        yield row(agent, config, method=config.method, name=config.name, step=str(step))


def groups(runs: list[Path]) -> dict[tuple[Tree, str, str], dict[Path, Config]]:
    """Runs by tree, task and preset. What they look at must be the same, and no run may count twice."""
    found: dict[tuple[Tree, str, str], dict[Path, Config]] = {}
    for run in sorted(runs):
        config = read_config(run)
        tree = tree_of(config)
        settings = tree.load("settings")
        check_saved(config, settings.CONFIGS, settings.RANGES, run / "config.yaml")
        if "encoder" not in config:
            raise UserError(f"{run} holds an agent of method={config.method}, which has no encoder of single observations: leave it out")
        group = found.setdefault((tree, config[tree.task], config.preset), {})
        for other, theirs in group.items():
            if (config.method, config.name, config.seed) == (theirs.method, theirs.name, theirs.seed):
                raise UserError(f"{run} and {other} are the same method, name and seed: one run counts once")
            for key in SHARED[tree.name]:
                if config[key] != theirs[key]:
                    raise UserError(f"{run} and {other} have different settings of {key}: they cannot look at the same frames")
        group[run] = config
    return found


def main(arguments: list[str]) -> int:
    options = Options(arguments, {"results": str(ROOT / "results"), "device": "auto", "threads": "0"}, words=True)
    if not options.words:
        raise UserError("say which runs: scripts/readout.sh runs/dmcontrol/<task>/*/seed*")
    machine.set_threads(options.whole("threads", 0, 1024))
    results = Path(options["results"])
    measurements.READOUT.read(results)  # so that an error in it comes before the measurement
    chosen = groups([Path(word) for word in options.words])
    if results == ROOT / "results" and any(preset == "debug" for _, _, preset in chosen):
        raise UserError("runs of preset debug learn nothing, so the project's table does not take them: add results=FOLDER")
    for (tree, task, preset), members in chosen.items():
        precision = machine.choose_precision("fp32", machine.choose_device(options["device"]))
        source, rows = Source(tree, next(iter(members.values())), precision), []
        for row in compare(source, members):
            rows.append(row)
            name = " ".join(filter(None, (row["method"], row["name"], f"seed {row['seed']}")))
            print(f"{task}, {preset}, {name}: R2 {row['r2']}, rank {row['rank']}", end="")
            print("".join(f", {key} {row[key]}" for key in measurements.LOSSES if row[key]), flush=True)
        file = measurements.READOUT.replace(results, rows)
    print(f"all rows: {file}")
    return 0


if __name__ == "__main__":
    run_main(main)
