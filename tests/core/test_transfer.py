"""transfer.run, transfer.parts and transfer.freeze: a run begins with parts of another one."""

import shutil

import pytest
import torch

import Atari.methods
import Atari.player
import Atari.settings
import Atari.train
import DMControl.methods
import DMControl.player
import DMControl.settings
import DMControl.train
from DMControl.core import machine
from DMControl.core.errors import UserError
from DMControl.core.method.momentum import Momentum
from scripts.ledger.runs import changed, config_hash
from scripts.runs.export import main as export
from scripts.trees import ATARI, DMCONTROL
from tests import stopped

SHORT = {
    "dmcontrol": ("preset=debug", "action_repeat=40", "env_steps=1600", "train.random_steps=12", "eval.episodes=1"),
    "atari": ("preset=debug", "steps=60", "train.random_steps=20", "env.max_steps=40", "eval.final_episodes=1"),
}
TREES = {"dmcontrol": DMControl, "atari": Atari}
METHODS = [(tree, method) for tree, package in TREES.items() for method in package.methods.METHODS]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def make(tree: str, runs, *arguments: str):
    package, own = TREES[tree], ("eval.video=false", "tracker=none", f"runs={runs}", *arguments)
    return package.train.make_trainer(package.settings.read_config([*SHORT[tree], *own]), "test")


@pytest.fixture(scope="module")
def sources(runs):
    """sources("dmcontrol", "madi") is the folder of a short finished run."""
    made = {}

    def source(tree: str, method: str):
        if (tree, method) not in made:
            trainer, code = stopped.train(make(tree, runs, f"method={method}", "seed=5"))
            assert code == 0
            made[tree, method] = trainer.folder.path
        return made[tree, method]

    return source


def state_of(agent, part: str) -> torch.Tensor:
    return torch.cat([value.detach().double().reshape(-1) for value in agent.transferable[part].parameters()])


def agent_of(tree: str, method: str):
    package, debug = TREES[tree], ("preset=debug", f"method={method}", "device=cpu")
    config = package.settings.read_config([*debug])
    return package.methods.make_agent(config, 2, machine.choose_precision("fp32", torch.device("cpu"))), config


@pytest.mark.parametrize(
    ("tree", "method", "parts", "freeze"),
    [
        ("dmcontrol", "madi", ("encoder", "masker"), True),
        ("dmcontrol", "mlr", ("encoder", "actor", "critic"), False),
        ("dmcontrol", "sac_ae", ("encoder",), True),  # with weight decay
        ("dmcontrol", "slac", ("model",), True),
        ("atari", "mlr", ("encoder", "head"), True),
        ("atari", "madi", ("masker",), False),
    ],
)
def test_a_run_begins_with_the_parts_and_trains_or_keeps_them(tmp_path, sources, capsys, tree, method, parts, freeze):
    run = sources(tree, method)
    source = TREES[tree].player.load(run, "cpu").agent
    arguments = (f"method={method}", f"transfer.run={run}", f"transfer.parts=[{','.join(parts)}]", f"transfer.freeze={freeze}")
    trainer = make(tree, tmp_path, *arguments)
    begun = {part: state_of(trainer.agent, part) for part in trainer.agent.transferable}
    assert all(torch.equal(begun[part], state_of(source, part)) for part in parts)
    assert not any(torch.equal(begun[part], state_of(source, part)) for part in begun if part not in parts)
    assert f"transfer: {', '.join(parts)} from {tree}/" in capsys.readouterr().out
    stopped.train(trainer)
    for part in trainer.agent.transferable:
        assert torch.equal(begun[part], state_of(trainer.agent, part)) == (freeze and part in parts), part


@pytest.mark.parametrize(("tree", "method"), METHODS)
def test_every_target_network_begins_anew_from_the_network_that_it_follows(tree, method):
    agent, _ = agent_of(tree, method)
    followers = [m for m in (getattr(agent, "momentum", None), getattr(getattr(agent, "objective", None), "targets", None)) if m]
    if tree == "atari":
        followers.append(Momentum((agent.network, agent.target, 1.0)))
    with torch.no_grad():
        for part in agent.transferable.values():
            for p in part.parameters():
                p.add_(1.0)
    agent.reset_targets()
    assert all(follower.distance() == 0 for follower in followers)
    assert followers or method in ("dreamer", "planet")
    targets = {id(p) for follower in followers for _, target, _ in follower.groups for p in target}
    assert not targets & {id(p) for part in agent.transferable.values() for p in part.parameters()}


@pytest.mark.parametrize(("tree", "freeze"), [("dmcontrol", True), ("atari", False)])
def test_a_stop_changes_nothing_and_a_resume_needs_no_source(tmp_path, sources, tree, freeze):
    copy = tmp_path / "copy" / sources(tree, "madi").relative_to(sources(tree, "madi").parents[3])
    shutil.copytree(sources(tree, "madi"), copy)
    arguments = ("method=madi", f"transfer.run={copy}", "transfer.parts=[encoder,masker]", f"transfer.freeze={freeze}")
    whole, _ = stopped.train(make(tree, tmp_path / "whole", *arguments))
    stopped.train(make(tree, tmp_path / "parts", *arguments), stop_at=30)
    shutil.rmtree(copy)
    resumed, code = stopped.train(make(tree, tmp_path / "parts", *arguments))
    assert code == 0 and all(torch.equal(state_of(whole.agent, part), state_of(resumed.agent, part)) for part in whole.agent.transferable)


def test_the_ledger_names_the_source_and_a_run_without_one_is_no_variant(sources):
    for tree, runs in ((DMCONTROL, sources("dmcontrol", "madi")), (ATARI, sources("atari", "madi"))):
        config = tree.read_config(["preset=debug", "method=madi", f"transfer.run={runs}", "transfer.freeze=true"])
        assert "transfer.freeze=True transfer.parts=['encoder'] " + f"transfer.run={'/'.join(runs.parts[-4:])}" in changed(tree, config)
        assert config_hash(config) == config_hash(config | {"transfer": config["transfer"] | {"run": "elsewhere"}})
        assert "transfer" not in tree.read_config(["preset=debug", "method=madi"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transfer.parts=[encoder]"], "key transfer.parts has no effect without transfer.run=RUN_DIR"),
        (["transfer.run=RUN", "transfer.parts=[]"], r"transfer.parts=\[\] must name parts, each once"),
        (["transfer.run=RUN", "transfer.parts=[encoder,encoder]"], "must name parts, each once"),
        (["transfer.run=nowhere"], "transfer.run=.*nowhere is not the folder of a run or an export"),
        (["transfer.run=ATARI"], "transfer.run=.* is no run of this tree: its config.yaml names no task"),
        (["transfer.run=RUN", "encoder.tanh=true"], "mean the same in both runs, but encoder.tanh=false there and true here"),
        (["transfer.run=EXPORT", "transfer.parts=[encoder,critic]"], "transfer.parts=critic: .* holds only what acts"),
        (["transfer.run=RUN", "transfer.parts=[encodr]"], "transfer.parts=encodr is unknown for method=mlr: did you mean encoder"),
        (["transfer.run=RUN", "transfer.parts=[masker]"], "transfer.parts=masker is unknown for method=mlr"),
        (["method=madi", "transfer.run=MLR", "transfer.parts=[masker]"], "transfer.parts=masker: .* has only encoder, critic, actor"),
        (["transfer.run=RUN", "image.crop=30"], "transfer.parts=encoder: head.fc.weight has the shape 50x144 there and 50x64 here"),
        (["task=walker_walk", "transfer.run=RUN", "transfer.parts=[actor]"], "transfer.parts=actor: policy.4.weight has the shape"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, sources, arguments, message):
    where = {"RUN": ("dmcontrol", "madi"), "MLR": ("dmcontrol", "mlr"), "ATARI": ("atari", "mlr")}
    typed = [f"transfer.run={sources(*where[a[13:]])}" if a[13:] in where else a for a in arguments]
    if "transfer.run=EXPORT" in typed:
        export([str(sources("dmcontrol", "madi")), f"to={tmp_path / 'export'}"])
        typed = [a.replace("EXPORT", str(tmp_path / "export")) for a in typed]
    with pytest.raises(UserError, match=message):
        make("dmcontrol", tmp_path, *typed)
