"""Settings: the paper's values, the names a user may type, and one clear line for a mistake."""

import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

from DMControl import settings
from DMControl.core.errors import UserError, run_main
from DMControl.core.run.config import differences, flatten, plain
from DMControl.core.run.folder import RunFolder
from DMControl.core.run.paths import safe_folder
from DMControl.settings import read_config, run_path
from DMControl.train import main

PER_TASK = {  # action repeat, lr, cube depth, tau
    "finger_spin": (2, 1e-3, 8, 0.05),
    "cartpole_swingup": (8, 1e-3, 4, 0.05),
    "reacher_easy": (4, 1e-3, 4, 0.05),
    "cheetah_run": (4, 2e-4, 8, 0.05),
    "walker_walk": (2, 1e-3, 8, 0.10),
    "ball_in_cup_catch": (4, 1e-3, 8, 0.05),
}


@pytest.mark.parametrize("task", PER_TASK)
def test_the_papers_values_per_task(task):
    c = read_config([f"task={task}", "method=mlr", "preset=paper"])
    assert (c.action_repeat, c.sac.lr, c.mlr.mask.block, c.mlr.tau) == PER_TASK[task]
    assert c.mlr.lr == c.sac.lr and c.task == task
    assert (c.mlr.window, c.mlr.batch_size, c.sac.batch_size, c.encoder.filters) == (16, 128, 512, 64)


PUBLISHED = {  # filters, tanh, init; lr, lr of cheetah_run, of the temperature, its first beta; tau of the encoder, exact log pi
    "mlr": (64, False, "delta_orthogonal", 1e-3, 2e-4, 1e-4, 0.5, 0.05, False),
    "spr": (64, False, "delta_orthogonal", 1e-3, 2e-4, 1e-4, 0.5, 0.05, False),
    "playvirtual": (64, False, "delta_orthogonal", 1e-3, 2e-4, 1e-4, 0.5, 0.05, False),
    "curl": (32, False, "delta_orthogonal", 1e-3, 2e-4, 1e-4, 0.5, 0.05, False),
    "sac_ae": (32, True, "delta_orthogonal", 1e-3, 1e-3, 1e-4, 0.5, 0.05, False),
    "drq": (32, True, "orthogonal", 1e-3, 1e-3, 1e-3, 0.9, 0.01, True),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_published_setting_of_each_method(method):
    c, cheetah = (read_config([f"method={method}", "preset=paper", f"task={task}"]) for task in ("walker_walk", "cheetah_run"))
    encoder, sac = c.encoder, c.sac
    found = (encoder.filters, encoder.tanh, encoder.init, sac.lr, cheetah.sac.lr, sac.alpha_lr, sac.alpha_betas[0], sac.encoder_tau)
    assert (*found, sac.exact_log_prob) == PUBLISHED[method]
    ae = method == "sac_ae"
    assert (sac.batch_size, c.replay.capacity, c.train.catch_up) == ((128, 1_000_000, 1000) if ae else (512, 100_000, 0))
    assert cheetah.get("curl", {"lr": 2e-4})["lr"] == 2e-4 and cheetah.get("sac_ae", {"encoder_lr": 1e-3})["encoder_lr"] == 1e-3
    assert (
        c.get("curl", {"lr": 1e-3})["lr"] == c.get("sac_ae", {"encoder_lr": 1e-3})["encoder_lr"] == c.get("spr", {"lr": 1e-3})["lr"] == 1e-3
    )
    for preset in ("small", "debug"):  # the same SAC for every method
        ours, base = (read_config([f"method={m}", f"preset={preset}", "task=cheetah_run"]) for m in (method, "baseline"))
        assert all(ours[block] == base[block] for block in ("encoder", "sac", "replay", "train", "eval")), preset


def test_the_published_setting_of_a_method_can_be_inherited_and_overridden(tmp_path, monkeypatch):
    shutil.copytree(settings.CONFIGS, tmp_path / "dmcontrol")
    monkeypatch.setattr(settings, "CONFIGS", tmp_path / "dmcontrol")
    presets = tmp_path / "dmcontrol/preset"
    (presets / "mine.yaml").write_text("# @package _global_\ndefaults: [paper]\nencoder: {filters: 7}\n")
    mine = read_config(["method=drq", "preset=mine"])
    assert (mine.preset, mine.encoder.filters, mine.encoder.tanh, mine.sac.alpha_lr) == ("mine", 7, True, 1e-3)
    assert read_config(["method=drq", "sac.alpha_lr=0.5", "preset=paper"]).sac.alpha_lr == 0.5, "the user has the last word"
    own = presets / "paper/drq.yaml"
    own.write_text("# @package _global_\nprotocol: dmcgb\naction_repeat: 3\n")
    assert read_config(["method=drq"]).action_repeat == 3, "the protocol leaves what the preset says for the method"
    own.write_text("encoder: {filters: 9}\n")
    with pytest.raises(UserError, match=r"preset/paper/drq.yaml must begin with the line '# @package _global_'"):
        read_config(["method=drq"])
    own.write_text("# @package _global_\nencoder: {filtres: 9}\n")
    with pytest.raises(UserError, match=r"did you mean encoder\.filters"):
        read_config(["method=drq"])


def test_any_suite_task_by_name():
    c = read_config(["task=hopper_hop"])
    assert c.task == "hopper_hop" and c.action_repeat == 4


def test_the_user_has_the_last_word():
    c = read_config(["preset=small", "mlr.mask.ratio=0.9", "sac.lr=1", "augment.order=[shift,crop]", "env_steps=2e4"])
    assert c.mlr.mask.ratio == 0.9 and c.sac.lr == 1.0 and c.augment.order == ["shift", "crop"] and c.env_steps == 20_000
    assert isinstance(c.env_steps, int) and c.mlr.window == 8


def test_baseline_knows_no_mlr():
    c = read_config(["method=baseline", "preset=small"])
    assert "mlr" not in c and list(c.quirks) == ["rl_without_intensity", "rl_crop_misses_last"]


MISTAKES = [
    (["task=cheeta_run"], "did you mean cheetah_run"),
    (["method=mrl"], "did you mean mlr"),
    (["preset=papier"], "did you mean paper"),
    (["mlr.mask.ration=0.5"], "did you mean mlr.mask.ratio"),
    (["seeds=3"], "did you mean seed"),
    (["sac.lr=fast"], "must be a number"),
    (["seed=1.5"], "must be a whole number"),
    (["seed=-1"], "must be between 0"),
    (["eval.video=maybe"], "must be true or false"),
    (["method=baseline", "mlr.tau=0.1"], "no effect with method=baseline"),
    (["mlr.target=latents"], "did you mean latent"),
    (["task"], "key=value"),
    (["seed=1,2"], "key=value"),
    (["augment.order=crop"], "must be a list"),
    (["task=[a"], "cannot be read"),
    (["sac.log_std=[2.0]"], "two numbers"),
    (["encoder.centre=[52,78]"], "a value per colour"),
    (["mlr.mask.fill=white"], "white is unknown"),
    (["mlr.mask.fill=mean"], "takes encoder.centre"),
    (["encoder.centre=[52,78,300]"], "between 0 and 255"),
    (["encoder.centre=[a,b,c]"], "must be a number"),
    (["sac.log_std=[2,-10]"], "two numbers"),
    (["train.random_steps=3"], r"mlr.window \+ 2 = 18"),
    (["env_steps=1e30"], "between 1 and"),
    (["env_steps=8000"], "nothing is learnt before"),
    (["intensity=0.5"], "no effect with world=clean"),
    (["dmcgb.agent_steps=7777"], "no effect with protocol=mlr"),
    (["method=slac", "slac.centre=[52]"], "a value per colour"),
    (["preset=madi_small", "method=slac"], "no settings for method=slac"),
    (["preset=madi", "env_steps=80000", "dmcgb.agent_steps=7777"], "leave one of them out"),
    (["++intensity=0.5"], "eval.intensities"),
    (["method=madi", "masker.threshold=0.9"], "no effect with masker.type=soft: it takes masker.type=hard or mixed"),
    (["method=svea", "augment=conv", "strong_augmentation.alpha=0.3"], "no effect with strong_augmentation.kind=conv"),
]


def test_a_number_is_a_name_too():
    assert read_config(["name=123"]).name == "123"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run", read_config(["preset=debug"]))


@pytest.mark.parametrize(("arguments", "says"), MISTAKES)
def test_a_mistake_is_named(arguments, says):
    with pytest.raises(UserError, match=says):
        read_config(arguments)


def test_a_mistake_in_a_yaml_file_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "dmcontrol"
    shutil.copytree(settings.CONFIGS, folder)
    monkeypatch.setattr(settings, "CONFIGS", folder)
    (folder / "preset" / "mine.yaml").write_text("# @package _global_\npreset: mine\nsac: {batch_sise: 64}\n")
    with pytest.raises(UserError, match=r"in the YAML files: key .* is unknown: did you mean sac.batch_size"):
        read_config(["preset=mine"])
    (folder / "preset" / "mine.yaml").write_text("# @package _global_\npreset: mine\nsac: {batch_size: 64}\n")
    assert read_config(["preset=mine"]).sac.batch_size == 64
    (folder / "preset" / "mine.yaml").write_text("# @package _global_\npreset: mine\nprotocol: dmcgb\nenv_steps: 50000\naction_repeat: 2\n")
    own = read_config(["preset=mine"])
    assert (own.env_steps, own.action_repeat) == (50_000, 2), "the protocol leaves what the preset says"
    (folder / "preset" / "more.yaml").write_text("# @package _global_\ndefaults: [mine, _self_]\npreset: more\nreplay: {capacity: 900}\n")
    assert read_config(["preset=more"]).env_steps == 50_000, "and what the preset begins from says"
    assert read_config(["preset=more", "dmcgb.agent_steps=7000"]).env_steps == 14_000, "the user has the last word"
    (folder / "preset" / "mine.yaml").write_text("a: [1\n")
    with pytest.raises(UserError, match="not valid YAML"):
        read_config(["preset=mine"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["task=walker_wlak"], "did you mean walker_walk"),
        (["preset=debug", "device=cuda"], "sees no GPU"),
        (["preset=debug", "mlr.mask.patch=7"], "does not divide"),
        (["preset=debug", "mlr.window=5"], "not a multiple"),
        (["preset=debug", "encoder.strides=[]"], "equally many"),
        (["preset=debug", "method=drq", "drq.views=0"], "drq.views=0 must be between 1 and 64"),
        (["preset=debug", "method=drq", "drq.target_views=0"], "drq.target_views=0 must be between 1 and 64"),
        (["preset=debug", "method=curl", "sac_ae.weight=2"], "key sac_ae.weight has no effect with method=curl"),
        (["preset=debug", "method=spr", "mlr.window=5"], "key mlr.window has no effect with method=spr"),
        (["preset=debug", "method=playvirtual", "playvirtual.copies=0"], "playvirtual.copies=0 must be at least 1"),
        (
            ["preset=debug", "method=playvirtual", "spr.steps=6", "action_repeat=200", "env_steps=20000"],
            "has 5 steps with action_repeat=200: a window of 7 does not fit: lower spr.steps or action_repeat",
        ),
        (["preset=debug", "action_repeat=250", "env_steps=20000"], "a window of 4 does not fit: lower mlr.window or action_repeat"),
    ],
)
def test_the_user_sees_one_line_and_code_2(arguments, says, tmp_path, monkeypatch, capsys):
    if "device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(sys, "argv", ["train", *arguments, f"runs={tmp_path}"])
    with pytest.raises(SystemExit) as ending:
        run_main(main)
    said = capsys.readouterr().err
    assert ending.value.code == 2 and says in said
    assert said.count("\n") == 1 and said.startswith("error: ")
    assert not list(tmp_path.iterdir())  # and nothing was written


def test_no_renderer_names_the_package(tmp_path, monkeypatch):
    from DMControl import renderer

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(renderer, "probe", lambda backend, remedy: "cannot load library")
    with pytest.raises(UserError, match="apt-get install libosmesa6"):
        renderer.choose_renderer()


def test_another_setting_in_the_same_folder_is_refused(tmp_path):
    first = read_config(["preset=debug"])
    RunFolder(tmp_path / "run", first).lock.close()
    changed = read_config(["preset=debug", "sac.lr=0.01"])
    RunFolder(tmp_path / "run", changed).lock.close()  # nothing was saved yet: the corrected command may begin
    (tmp_path / "run" / "checkpoint" / "step_000000001").mkdir(parents=True)
    RunFolder(tmp_path / "run", changed).lock.close()
    with pytest.raises(UserError, match=r"sac.lr \(0.01 -> 0.001\)"):
        RunFolder(tmp_path / "run", first)
    free = read_config(["preset=debug", "sac.lr=0.01", "device=cpu", f"runs={tmp_path}"])
    RunFolder(tmp_path / "run", free).lock.close()  # where it runs is free
    (tmp_path / "run" / "config.yaml").write_text("")
    with pytest.raises(UserError, match="holds no settings"):
        RunFolder(tmp_path / "run", first)


@pytest.mark.parametrize("begun", ["result.json", "checkpoint/step_000000001/manifest.json"])
def test_values_are_checked_before_the_folder_is_compared(begun, tmp_path):
    config = read_config(["preset=debug", f"runs={tmp_path}"])
    RunFolder(run_path(config), config).lock.close()
    file = run_path(config) / begun
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    with pytest.raises(UserError, match="a window of 4 does not fit"):
        main(["preset=debug", f"runs={tmp_path}", "action_repeat=250", "env_steps=20000", "device=cpu"])
    with pytest.raises(UserError, match=r"other settings: sac.lr \(0.001 -> 0.5\)"):
        main(["preset=debug", f"runs={tmp_path}", "sac.lr=0.5", "device=cpu"])


def test_a_file_without_its_first_line_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "dmcontrol"
    shutil.copytree(settings.CONFIGS, folder)
    monkeypatch.setattr(settings, "CONFIGS", folder)
    (folder / "preset" / "mine.yaml").write_text("env_steps: 160\n")
    with pytest.raises(UserError, match="@package _global_"):
        read_config(["preset=mine"])


def test_a_second_method_may_share_a_block(tmp_path, monkeypatch):
    folder = tmp_path / "dmcontrol"
    shutil.copytree(settings.CONFIGS, folder)
    monkeypatch.setattr(settings, "CONFIGS", folder)
    text = (folder / "method" / "mlr.yaml").read_text()
    (folder / "method" / "mlr2.yaml").write_text(text.replace("method: mlr ", "method: mlr2 ").replace("method: mlr\n", "method: mlr2\n"))
    assert read_config(["method=mlr", "mlr.tau=0.3"]).mlr.tau == 0.3
    assert "mlr" in read_config(["method=mlr2"]) and "mlr" not in read_config(["method=baseline"])


def test_the_stand_in_is_nobodys_name():
    for name in ("other", "walker"):
        with pytest.raises(UserError, match=f"task={name} is unknown"):
            read_config([f"task={name}"])


def test_a_renderer_of_the_users_that_does_not_work(monkeypatch):
    from DMControl import renderer

    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(UserError, match="MUJOCO_GL=nonsense does not render"):
        renderer.choose_renderer()


MESA = Path("/usr/share/glvnd/egl_vendor.d/50_mesa.json")


@pytest.mark.skipif(not MESA.exists(), reason="needs Mesa's EGL")
def test_a_driver_that_egl_does_not_look_for_is_named_to_it(tmp_path, monkeypatch):
    """In a container with NVIDIA's driver its description may lie where libEGL does not look. The user's own choice stays."""
    from DMControl import renderer

    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_DIRS", str(tmp_path))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    for name in (renderer.PROBED, "__EGL_VENDOR_LIBRARY_FILENAMES"):  # to be as they were after the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="MUJOCO_GL=egl does not render"):
        renderer.choose_renderer()
    monkeypatch.setattr(renderer, "NVIDIA_VENDOR", MESA)
    assert renderer.choose_renderer() == "egl" and os.environ["__EGL_VENDOR_LIBRARY_FILENAMES"] == str(MESA)
    monkeypatch.delenv(renderer.PROBED)
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", str(tmp_path / "mine.json"))
    with pytest.raises(UserError, match="MUJOCO_GL=egl does not render"):
        renderer.choose_renderer()


def test_a_renderer_that_hangs_is_given_up(monkeypatch):
    from DMControl import renderer

    monkeypatch.setattr(renderer, "PATIENCE", 1.0)
    monkeypatch.setattr(renderer, "PROBE", "import time; time.sleep(60)")
    before = time.monotonic()
    assert renderer.probe("osmesa", together=2) == "rendered no frame within 1 seconds"
    assert time.monotonic() - before < 5


def test_a_folder_has_one_owner(tmp_path):
    config = read_config(["preset=debug"])
    owner = RunFolder(tmp_path / "run", config)
    with pytest.raises(UserError, match="another process"):
        RunFolder(tmp_path / "run", config)
    owner.lock.close()
    RunFolder(tmp_path / "run", config).lock.close()


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "/etc", ".hidden", "a..b"])
def test_names_cannot_leave_the_folder(name):
    with pytest.raises(UserError):
        safe_folder("runs", name)


def test_differences_name_the_keys():
    a, b = plain(read_config([])), plain(read_config(["mlr.tau=0.2", "threads=3"]))
    assert differences(a, b, ("threads",)) == ["mlr.tau (0.05 -> 0.2)"]
    assert dict(flatten(a))["mlr.tau"] == 0.05


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("action_repeat: 8", "action_repeat: 0", "action_repeat=0 must be between"),
        ("action_repeat: 8", "action_repeat: [8]", "action_repeat=[8] must be a whole number"),
        ("  stack: 3", "  stack: 3\n  stacks: 3", "image.stacks that is unknown"),
    ],
)
def test_evaluate_refuses_settings_edited_by_hand(tmp_path, old, new, says):
    from DMControl.evaluate import main

    RunFolder(tmp_path / "run", read_config(["preset=debug"]))
    file = tmp_path / "run" / "config.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=re.escape(says)):
        main([f"run={tmp_path / 'run'}"])
