"""A trained policy in other people's hands: load_agent, and a run's export."""

import numpy as np
import pytest
import torch

import Atari
import DMControl
from DMControl.core.errors import UserError
from DMControl.core.run.evaluation import EXPORTED, read_exported
from DMControl.core.run.folder import read_config
from scripts.runs import export
from scripts.trees import ATARI, DMCONTROL

PACKAGE = {"dmcontrol": DMControl, "atari": Atari}


@pytest.mark.parametrize("tree", [DMCONTROL, ATARI], ids=lambda tree: tree.name)
def test_a_run_its_export_and_an_evaluation_act_alike(tree, day, tmp_path, capsys):
    (run,) = (file.parent for file in (day[0] / tree.name).rglob("result.json"))
    assert export.main([str(run), f"to={tmp_path}"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {EXPORTED, "config.yaml", "README.md"}
    said, tensors = read_exported(tmp_path)
    assert said["method"] == "mlr" and not any(name.startswith(("target/", "objective/")) for name in tensors)
    card = (tmp_path / "README.md").read_text()
    assert f'load_agent("{tmp_path}")' in card and "± " in card and "{" not in card

    config = read_config(run)
    env = tree.make_env(config, 3, judge=True)
    machine = tree.load("core.machine")
    agent, _ = tree.load_agent(run, config, env, machine.choose_precision(config.precision, torch.device("cpu")))
    players = [PACKAGE[tree.name].load_agent(str(folder), "cpu") for folder in (run, tmp_path)]
    actions = []
    for _ in range(2):  # episodes
        stack, images = tree.make_stack(config, torch.device("cpu")), []
        image = env.reset(0)
        stack.start(image)
        for player in players:
            player.reset()
        for step in range(5):
            images.append(image)
            seen = image if step % 2 else np.concatenate(images[-2:], -1)  # alone, or as the newest of a stack
            wanted = tree.act(agent, tree.observation(stack, torch.device("cpu")), explore=False)
            for player in players:
                np.testing.assert_array_equal(player.act(seen), wanted)
            actions.append(wanted)
            result = env.step(wanted)
            tree.push(stack, result)
            image = result.frame
    assert np.array_equal(actions[:5], actions[5:])  # the second episode does not see the first
    with pytest.raises(tree.load("core.errors").UserError, match="an image must be"):
        players[0].act(np.zeros((10, 10, 3), np.uint8))


def test_what_cannot_be_exported_or_read(day, tmp_path):
    (run,) = (file.parent for file in (day[0] / "dmcontrol").rglob("result.json"))
    with pytest.raises(UserError, match="say which run"):
        export.main([])
    empty = tmp_path / "dmcontrol/cartpole_swingup/mlr-debug/seed1"
    empty.mkdir(parents=True)
    (empty / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(UserError, match="no saved policy"):
        export.main([str(empty)])
    (empty / EXPORTED).write_bytes(b"nothing")
    with pytest.raises(UserError, match="export the run again"):
        DMControl.load_agent(str(empty))
