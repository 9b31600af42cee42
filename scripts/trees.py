"""The two trees, and the words in which they differ. What a script needs of a tree beyond these stays in the script, by `tree.name`."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from DMControl.core.errors import UserError, nearest
from DMControl.core.run.paths import run_path


@dataclass(frozen=True)
class Tree:
    name: str  # of the folders under runs/, configs/ and configs/sets/, and of the ledger's file
    package: str
    task: str  # the key that says what is learnt: task=..., game=...
    step: str  # the x axis, as the CSV files call it
    unit: str  # the x axis in a sentence
    title: str
    digits: int  # of a score in a table

    @property
    def train(self) -> str:
        """The module that trains: python -m ..."""
        return f"{self.package}.train"

    def load(self, module: str) -> ModuleType:
        """tree.load("memory") is DMControl.memory. Not imported before: most modules take torch and a simulator with them."""
        return importlib.import_module(f"{self.package}.{module}")

    def read_config(self, arguments: list[str]) -> Any:
        """The settings that these words choose."""
        return self._settings("read_config", arguments)

    def settings_file(self, task: str) -> str:
        """The name of the YAML file with this task's settings; several tasks may share one."""
        return self._settings("file_of", task)

    def _settings(self, function: str, argument: Any) -> Any:
        """Call a function of the tree's settings. Each tree has a UserError of its own; scripts meet only DMControl's."""
        try:
            return getattr(self.load("settings"), function)(argument)
        except self.load("core.errors").UserError as error:
            raise UserError(str(error)) from error

    def run_path(self, values: Mapping[str, Any], runs: str | Path) -> Path:
        """The folder of a run with these settings; a row of the ledger has them too."""
        return run_path(str(runs), self.name, values[self.task], *(values[key] for key in ("method", "preset", "seed", "name")))

    def label(self, values: Mapping[str, Any]) -> str:
        """pong-mlr-paper-seed1, for a file that tells of this run."""
        return "-".join(self.run_path(values, ".").parts[1:])

    def memory(self, config: Any, env: Any, precision: Any) -> dict[str, int]:
        """Bytes that a run needs, by what needs them."""
        return self.load("memory").memory(config, self.actions(env), precision)

    def make_trainer(self, config: Any, command: str) -> Any:
        """A run with everything it needs, at its first step."""
        return self.load("train").make_trainer(config, command)

    def acting(self, networks: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Of an agent's networks those that act and describe observations: without slow copies, objective and Q functions."""
        found = {name: dict(part) for name, part in networks.items() if isinstance(part, Mapping) and name not in ("target", "objective")}
        if "critic" in found:
            found["critic"] = {key: value for key, value in found["critic"].items() if key.startswith("encoder.")}
        return {name: part for name, part in found.items() if part}

    def updates(self, config: Any, steps: int) -> int:
        """Updates in that many agent steps."""
        return self.load("core.run.trainer").updates_until(config.train, steps)

    def make_agent(self, config: Any, env: Any, precision: Any) -> Any:
        return self.load("methods").make_agent(config, self.actions(env), precision)

    def load_agent(self, run: Path, config: Any, env: Any, precision: Any) -> tuple[Any, int]:
        """The newest saved agent of a run, and its agent step."""
        return self.load("evaluate").load_agent(run, self.for_acting(config), self.actions(env), precision)

    def act(self, agent: Any, observation: Any, explore: bool, elsewhere: bool = False) -> Any:
        """One action of an agent without memory of the episode so far. elsewhere: not in the world of its training."""
        return agent.act(observation, agent.begin(1), explore, elsewhere=elsewhere)[0][0]

    def update(self, agent: Any, replay: Any) -> Any:
        """One update, as in the middle of a run, in which every part is due."""
        agent.updates = max(agent.updates, agent.model_updates)
        return agent.update(replay, 50_000)


class DMControlTree(Tree):
    """Agents, environments and replays of DMControl, made and used as its train.py does."""

    def actions(self, env: Any) -> int:
        """How many numbers an action has; in AtariTree, how many actions there are."""
        return env.action_dim

    def repeat(self, config: Any) -> int:
        """Simulator steps of an agent step."""
        return config.action_repeat

    def steps(self, config: Any) -> int:
        """Agent steps of a whole run."""
        return -(-config.env_steps // config.action_repeat)

    def updates(self, config: Any, steps: int) -> int:
        unit = self.load("settings").unit_of(config.train)
        stride = {"step": 1, "env_step": 1 / config.action_repeat, "episode": 1000 / config.action_repeat}[unit]  # agent steps
        train = type(config)({**config.train, **{k: max(1, round(config.train[k] * stride)) for k in ("random_steps", "update_every")}})
        return self.load("core.run.trainer").updates_until(train, steps)

    def simulator_steps(self, config: Any) -> int:
        """Of a whole run, as `unit` counts them."""
        return config.env_steps

    def evaluation_episodes(self, config: Any) -> int:
        """Of a whole run."""
        return (config.env_steps // config.eval.every + 1) * config.eval.episodes * len(self.load("settings").worlds_of(config))

    def saves(self, config: Any) -> int:
        """Of a whole run."""
        return config.env_steps // config.checkpoint.every

    def make_env(self, config: Any, seed: int, judge: bool = False, clean: bool = False) -> Any:
        """The environment that a run trains in, or that judges it; `clean`: without what its world adds."""
        streams = self.load("env")
        world = self.load("worlds.catalogue").WorldName("clean") if clean else self.load("settings").worlds_of(config)[0]
        return self.load("evaluate").make_env(config, seed, streams.EVALUATE if judge else streams.TRAIN, world)

    def distracts(self, config: Any) -> bool:
        """Whether a run trains in a world other than the clean one; in AtariTree, with a moving background."""
        return config.get("world", "clean") != "clean"

    def for_acting(self, config: Any) -> Any:
        """The settings without what a deterministic policy needs only in training."""
        return self.load("core.run.evaluation").for_acting(config)

    def make_replay(self, config: Any, env: Any, agent: Any) -> Any:
        image, capacity = config.image, self.load("memory").capacity(config)
        replay = self.load("replay").Replay
        return replay(capacity, env.episode_length, image.stack, image.size, env.action_dim, agent.device, agent.generator)

    def fill(self, replay: Any, env: Any, rng: Any) -> None:
        """Transitions of random actions, as many as fit, loaded as from a save. One frame stands for all: rendering would take hours."""
        import torch  # not at the top: launchers import this file and need no torch

        count, length, step = replay.capacity, env.episode_length, torch.arange(replay.capacity)
        arrays = {
            "action": torch.from_numpy(rng.uniform(-1, 1, (count, env.action_dim))).float(),
            "reward": torch.zeros(count, 1),
            "not_done": torch.ones(count, 1),
            "frame": step + step // length,  # an episode has one frame more than transitions
            "age": step % length,
            "ends": step % length == length - 1,
        }
        frames = count + -(-count // length)
        counters = {"added": count, "frames_added": frames, "oldest": 0, "current_age": (count - 1) % length + 1}
        state = {"arrays": arrays, "counters": counters | {"capacity": count, "slots": replay.slots}}
        frame = env.reset().transpose(2, 0, 1).tobytes()
        segments = [{"first": first, "count": min(length, frames - first)} for first in range(0, frames, length)]
        replay.load_state_dict(state, segments, lambda segment: frame * segment["count"])

    def make_stack(self, config: Any, device: Any) -> Any:
        """What an agent sees of an episode. It begins with start(frame)."""
        return self.load("env").Stack(config.image.stack, device)

    def push(self, stack: Any, result: Any) -> None:
        """Add what a step of the environment gave."""
        stack.push(result.frame)

    def observation(self, stack: Any, device: Any) -> Any:
        return stack.observation()

    def random_action(self, env: Any, rng: Any) -> Any:
        return rng.uniform(-1, 1, env.action_dim)

    def store(self, replay: Any, action: Any, result: Any) -> None:
        replay.add(action, result.reward, result.terminal, result.last, result.frame)

    def evaluate(self, agent: Any, config: Any, env: Any, episodes: int) -> Any:
        return self.load("evaluate").evaluate(agent, env, self.make_stack(config, agent.device), episodes, elsewhere=False)


class AtariTree(Tree):
    """The same of Atari."""

    def actions(self, env: Any) -> int:
        return env.n_actions

    def repeat(self, config: Any) -> int:
        return config.env.frame_skip

    def steps(self, config: Any) -> int:
        return config.steps

    def simulator_steps(self, config: Any) -> int:
        return config.steps * config.env.frame_skip

    def evaluation_episodes(self, config: Any) -> int:
        games = (1 + (config.steps - 1) // config.eval.every) * config.eval.episodes + config.eval.final_episodes
        return games * len(self.load("distraction").distractions_of(config))

    def saves(self, config: Any) -> int:
        return config.steps // config.checkpoint.every

    def make_env(self, config: Any, seed: int, judge: bool = False, clean: bool = False) -> Any:
        streams, distraction = self.load("env"), self.load("distraction").Distraction("none") if clean else None
        return self.load("evaluate").make_env(config, seed, streams.EVALUATE if judge else streams.TRAIN, distraction)

    def distracts(self, config: Any) -> bool:
        return config["env"].get("distraction", "none") != "none"

    def for_acting(self, config: Any) -> Any:
        config = self.load("core.run.evaluation").for_acting(config)
        config["eval"]["epsilon"] = 0.0  # no random actions
        return config

    def make_replay(self, config: Any, env: Any, agent: Any) -> Any:
        return self.load("train").make_replay(config, agent)

    def fill(self, replay: Any, env: Any, rng: Any) -> None:
        """Transitions of random actions, more than an update draws from at once."""
        replay.start(env.reset())
        for _ in range(2000):
            action = self.random_action(env, rng)
            self.store(replay, action, env.step(action))
            if env.over:
                replay.start(env.reset())

    def make_stack(self, config: Any, device: Any) -> Any:
        return self.load("env").Stack(config.env.stack)

    def push(self, stack: Any, result: Any) -> None:
        stack.follow(result)

    def observation(self, stack: Any, device: Any) -> Any:
        return self.load("env").observations([stack], device)

    def random_action(self, env: Any, rng: Any) -> Any:
        return int(rng.integers(env.n_actions))

    def store(self, replay: Any, action: Any, result: Any) -> None:
        replay.add(action, result)

    def evaluate(self, agent: Any, config: Any, env: Any, episodes: int) -> Any:
        return self.load("evaluate").evaluate(agent, config, episodes, config.seed)


DMCONTROL = DMControlTree("dmcontrol", "DMControl", "task", "env_step", "env steps", "DeepMind Control Suite", 0)
ATARI = AtariTree("atari", "Atari", "game", "frame", "frames", "Atari-100k", 1)
TREES = (DMCONTROL, ATARI)


def tree_named(name: str) -> Tree:
    """dmcontrol or atari, in letters of either case."""
    found = {tree.name: tree for tree in TREES}
    if name.lower() not in found:
        raise UserError(f"tree {name} is unknown: {nearest(name, found)}")
    return found[name.lower()]


def tree_of(config: Mapping[str, Any]) -> Tree:
    """The tree of a run's settings, or of words such as game=pong."""
    found = [tree for tree in TREES if tree.task in config]
    if len(found) != 1:
        raise UserError("these are not the settings of a run: they must have either task or game")
    return found[0]
