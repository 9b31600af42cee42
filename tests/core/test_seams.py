"""What a user adds behind the seams: an objective in either tree, an agent that remembers, and a metric that nobody named."""

import csv
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import Atari.methods
import Atari.settings
import Atari.train
import DMControl.evaluate
import DMControl.methods
import DMControl.settings
import DMControl.train
from Atari.core.method.objective import Objective as AtariObjective
from DMControl.core.errors import UserError
from DMControl.core.machine import Precision
from DMControl.core.method.objective import Objective
from DMControl.core.method.optim import Adam
from DMControl.core.run.agent import Agent, Update
from DMControl.core.run.recorder import Recorder
from tests import stopped
from tests.dmcontrol.test_train import drawn_frames

__all__ = ["drawn_frames"]  # a fixture


def reward_prediction(base, handles, crop):
    class RewardPrediction(base):
        columns = ("loss/reward",)

        def __init__(self):
            super().__init__()
            self.encoder, self.head = handles.encoder, nn.Linear(handles.latent, 1)

        def loss(self, part):
            error = (self.head(handles.encode(crop(part.obs)))[:, 0] - part.reward[:, 0]).square()
            return error, {"loss/reward": error.detach().mean()}

    return RewardPrediction()


def build_in_dmcontrol(config, agent):
    objective = reward_prediction(Objective, agent.handles, lambda obs: obs.centre_crop(agent.handles.size))
    agent.attach(objective, Adam(objective.trained(), 1e-3))


def build_in_atari(config, agent):
    agent.attach(reward_prediction(AtariObjective, agent.handles, lambda obs: obs.whole()))


SHORT = {  # two episodes and more, most of their steps with an update
    "dmcontrol": ("action_repeat=40", "env_steps=2400", "train.random_steps=10", "eval.every=2400", "eval.episodes=1"),
    "atari": ("steps=100", "train.random_steps=30", "env.max_steps=40", "eval.final_episodes=1"),
}
TREES = {"dmcontrol": (DMControl, build_in_dmcontrol, SHORT["dmcontrol"]), "atari": (Atari, build_in_atari, SHORT["atari"])}


def columns(run):
    with open(run.folder.path / "train.csv", newline="") as file:
        return list(csv.DictReader(file))


def trainer_of(tree, tmp_path, monkeypatch, build, *arguments):
    on_agent = tree.methods.on_sac if tree is DMControl else tree.methods.on_rainbow
    monkeypatch.setitem(tree.methods.METHODS, "baseline", on_agent(build))
    common = ["preset=debug", "method=baseline", f"runs={tmp_path}", "eval.video=false"]
    return tree.train.make_trainer(tree.settings.read_config([*common, *arguments]), "test")


@pytest.mark.parametrize("name", TREES)
def test_a_minimal_objective_trains(name, tmp_path, monkeypatch):
    tree, build, length = TREES[name]
    run = trainer_of(tree, tmp_path, monkeypatch, build, *length)
    before = [p.clone() for p in run.agent.objective.head.parameters()]
    assert run.train() == 0
    assert all(not torch.equal(a, b) for a, b in zip(before, run.agent.objective.head.parameters(), strict=True))
    with open(run.folder.path / "train.csv") as file:
        header = file.readline().strip().split(",")
    assert len(header) == len(set(header))
    assert len(columns(run)) >= 2
    assert all(float(row["loss/reward"]) >= 0 and float(row["grad/objective"]) > 0 for row in columns(run)[1:])
    if name == "atari":
        head, encoder = run.agent.objective.head.weight, next(run.agent.network.encoder.parameters())
        groups = {group: {id(p) for p in members} for group, members in run.agent.clipped.items()}
        assert id(head) in groups["auxiliary"] and id(encoder) in groups["network"] and id(encoder) not in groups["auxiliary"]


@pytest.mark.parametrize("name", TREES)
def test_an_objective_hears_the_agent_step_of_each_update(name, tmp_path, monkeypatch):
    tree, build, length = TREES[name]
    heard = []

    def listening(config, agent):
        build(config, agent)
        agent.objective.at_step = heard.append

    run = trainer_of(tree, tmp_path, monkeypatch, listening, *length)
    heard.clear()  # its memory was measured by an update
    run.train()
    assert len(heard) == run.agent.updates and heard == sorted(heard)
    assert set(heard) == set(range(run.config.train.random_steps + 1, run.step + 1))


@pytest.mark.parametrize(
    ("name", "wish", "says"),
    [
        ("dmcontrol", {"window": 5}, "needs a batch_size"),
        ("dmcontrol", {"shares_state": True}, "does not share"),
        ("atari", {"every": 2}, "each of its updates"),
        ("atari", {"batch_size": 8}, "own batch"),
    ],
)
def test_what_an_agent_does_not_heed_is_refused(name, wish, says, tmp_path, monkeypatch):
    tree, build, length = TREES[name]

    def wishful(config, agent):
        monkeypatch.setattr(Objective if name == "dmcontrol" else AtariObjective, *next(iter(wish.items())))
        build(config, agent)

    with pytest.raises(ValueError, match=says):
        trainer_of(tree, tmp_path, monkeypatch, wishful, *length)


@pytest.mark.parametrize("name", TREES)
def test_a_metric_without_a_column_is_an_error(name, tmp_path, monkeypatch):
    tree, build, length = TREES[name]

    def forgetful(config, agent):
        build(config, agent)
        type(agent.objective).columns = ()

    run = trainer_of(tree, tmp_path, monkeypatch, forgetful, *length)
    with pytest.raises(ValueError, match="loss/reward: a metric needs a column"):
        run.train()


class Remembering(Agent):
    """An agent with a memory: a GRU over the mean colours of its frames. It saves and loads as the interface does."""

    period, window, columns, diagnostics = 1, 0, ("loss/colour",), ()

    def __init__(self, config, action_dim, precision, generator):
        self.generator, self.updates = generator, 0
        self.cell, self.action, self.colour = nn.GRUCell(3, 4), nn.Linear(4, 1), nn.Linear(3, 3)
        self.modules = {"cell": self.cell, "action": self.action, "colour": self.colour}
        self.optimizers = {"colour": Adam(self.colour.parameters(), 1e-2)}
        self.recorder = Recorder(generator.device, [generator], wanted=False)

    def colours(self, obs):
        return obs.whole().float().unflatten(1, (-1, 3))[:, -1].mean((2, 3)) / 255  # (N, 3)

    def begin(self, n):
        return torch.zeros(n, 4)

    @torch.no_grad()
    def act(self, obs, state, explore, generator=None, elsewhere=False):
        state = self.cell(self.colours(obs), state)
        noise = torch.randn(len(obs), 1, generator=generator or self.generator) if explore else 0.0
        return torch.tanh(3 * self.action(state) + 0.1 * noise).numpy(), state

    def random_action(self):
        return (torch.rand(1, generator=self.generator) * 2 - 1).numpy()

    def update(self, replay, step):
        batch = replay.sample(8)
        self.optimizers["colour"].zero_grad()
        loss = (self.colour(self.colours(batch.obs)) - self.colours(batch.next_obs)).square().mean()
        loss.backward()
        self.optimizers["colour"].step()
        self.updates += 1
        return Update({"loss/colour": loss.detach()}, {"batch": batch})

    def diagnose(self, replay, seed):
        return {}, {}

    def seen(self, obs, elsewhere=False):
        return {}


def test_an_agent_with_a_memory_trains_saves_and_resumes(tmp_path, monkeypatch, drawn_frames):
    """A stop in mid-episode changes nothing: what the agent remembers of the episode is saved with the rest."""
    monkeypatch.setitem(DMControl.methods.METHODS, "baseline", Remembering)

    def run(folder, stop_at=None):
        arguments = ["preset=debug", "method=baseline", f"runs={tmp_path / folder}", "eval.video=false", "env_steps=1600", "eval.every=800"]
        return stopped.train(DMControl.train.make_trainer(DMControl.settings.read_config(arguments), "test"), stop_at)

    whole, code = run("whole")
    assert code == 0 and whole.acting.shape == (1, 4)
    first, code = run("parts", stop_at=80)
    assert code == 128 + signal.SIGTERM and first.acting.abs().max() > 0 and not first.env.over
    second, code = run("parts")
    assert code == 0 and torch.equal(second.replay.action, whole.replay.action)
    assert torch.equal(second.acting, whole.acting) and torch.equal(second.agent.colour.weight, whole.agent.colour.weight)
    told = [[(row["env_step"], row["episode_return"], row["loss/colour"]) for row in columns(run)] for run in (whole, second)]
    assert told[0] == told[1] and any(loss for _, _, loss in told[0])
    again, step = DMControl.evaluate.load_agent(whole.folder.path, whole.config, 1, Precision(torch.device("cpu"), torch.float32))
    assert step == whole.step and torch.equal(again.colour.weight, whole.agent.colour.weight)
    forgetful = np.abs(whole.agent.act(whole.replay.newest(), whole.agent.begin(1), False)[0])
    assert not np.array_equal(forgetful, np.abs(whole.agent.act(whole.replay.newest(), whole.acting, False)[0]))


def test_a_failed_write_in_tensorboards_thread_leaves_no_traceback(tmp_path, monkeypatch):
    """The loop raises it again, in one line. Other errors of threads are still shown."""
    shown = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    trainer_of(DMControl, tmp_path, monkeypatch, build_in_dmcontrol, "env_steps=1400")
    for error in (OSError("disk full"), ValueError("a mistake")):
        threading.excepthook(SimpleNamespace(exc_value=error))
    assert [type(hook.exc_value) for hook in shown] == [ValueError]


@pytest.mark.parametrize(
    ("tree", "old", "new"),
    [
        (DMControl, "sac.random_steps", "train.random_steps"),
        (DMControl, "sac.catch_up", "train.catch_up"),
        (Atari, "rainbow.update_every", "train.update_every"),
        (Atari, "rainbow.updates_per_step", "train.updates_per_step"),
    ],
)
def test_keys_that_moved_name_their_new_place(tree, old, new):
    with pytest.raises(Exception, match=f"key {old} is now {new}") as error:
        tree.settings.read_config([f"{old}=2"])
    assert type(error.value).__name__ == UserError.__name__
