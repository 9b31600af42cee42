"""Whatever is typed or written into the YAML either makes a run or is one clear line: no other exception, no traceback."""

import copy
import io
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import Atari.env
import Atari.evaluate
import Atari.memory
import Atari.methods
import Atari.replay
import Atari.train
import DMControl.evaluate
import DMControl.memory
import DMControl.methods
import DMControl.replay
import DMControl.train
from Atari.core import errors as atari_errors
from DMControl.core import errors as dmcontrol_errors
from DMControl.core import machine
from DMControl.core.run import config as configuration
from DMControl.core.run import multirun
from scripts.trees import tree_named

CPU = torch.device("cpu")
TREES = {"dmcontrol": DMControl, "atari": Atari}
MISTAKE = (dmcontrol_errors.UserError, atari_errors.UserError)
OPTIONS = dict(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)
ODD = [
    "", "0", "-1", "1", "2", "3", "7", "1.5", "-0.5", "0.1", "1e-9", "1e3", "1e30", "1e400", "-1e400", "nan", "inf", ".nan", "-.inf",
    "true", "no", "null", "~", "none", "''", '""', "[]", "[1]", "[1,2]", "[1,[2]]", "[null]", "[a,b]", "[crop]", "[shift,shift]", "{}",
    "{a:1}", "{a:{b:1}}", "a", "a b", "a,b", "1,2", "../x", "/etc/passwd", "a/b", "..", ".", "$HOME", "${seed}", "${nope}",
    "${oc.env:HOME}", "${", "0x10", "1_000", "0b1", "9" * 25, "'", '"', "[", "]", "{", "}", "(", "\\", "=", "a=b", "=1", "@x", "é",
    "\u202e", "🙂", "x" * 300, "glob(*)", "range(1,3)", "choice(1,2)", "cuda:99", "cpu", "meta", "cpu:7", "bf16", "spatial", "temporal",
    "pixels", "baseline", "mlr", "shadow",
]  # fmt: skip


FORMS = [  # of tasks and games, and what looks like them
    "gym:CarRacing-v3", "gym:ALE/Pong-v5", "gym:", "gym:/", "gym:a/b/c", "gym:../x", "gym:é", "gym:a:b", "gym", "Gym:A-v0",
    "ur5e:visual_reach", "ur5e:", "ur5e:visual_raech", "ur5e", "ur5e+visual_reach", "gym+ALE+Pong-v5", "nope:x",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick_yaml():
    """The files are read thousands of times: parse each text once."""
    real, known = OmegaConf.load, {}

    def load(file):
        text = Path(file).read_text() if isinstance(file, (str, Path)) else file.read()
        if text not in known:
            known[text] = real(io.StringIO(text))
        return copy.deepcopy(known[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(load))
        yield


def declared(tree: str) -> dict:
    return configuration._schema(TREES[tree].settings.CONFIGS)[0]


def near(value) -> st.SearchStrategy[str]:
    """Values of the right kind, most of them possible."""
    if isinstance(value, bool):
        return st.sampled_from(["true", "false"])
    if isinstance(value, int):
        return st.sampled_from([value, value + 1, value - 1, value * 2, value // 2, 1, 2, 4, 8, 12]).map(str)
    if isinstance(value, float):
        return st.one_of(st.sampled_from([value, value * 2, value / 2, 0.0, 1.0, 0.25]), st.floats(0, 1)).map(str)
    if isinstance(value, list) and value and isinstance(value[0], str):
        words = st.sampled_from(["crop", "shift", "intensity", "affine", "resized_crop", "blur"])
        return st.lists(words, max_size=4).map(lambda w: f"[{','.join(w)}]")
    if isinstance(value, list):
        return st.lists(st.sampled_from([*value, 1, 2]), max_size=5).map(str)
    return st.sampled_from(
        ["auto", "cpu", "trial", "fp32", "delta_orthogonal", "kaiming", "latent", "pixels", "cube", "temporal", "constant"]
    )


def arguments(tree: str) -> st.SearchStrategy[list[str]]:
    """What a user may type: good keys with good or odd values, misspelt keys, choices, Hydra's signs, and plain rubbish."""
    known = declared(tree)
    number = st.one_of(st.integers(-3, 40), st.integers(), st.floats(), st.floats(0, 1)).map(str)
    odd = st.one_of(st.sampled_from(ODD), number, st.text(max_size=8))
    good = st.sampled_from(sorted(known)).flatmap(lambda k: st.builds(lambda v: f"{k}={v}", near(known[k])))
    groups = [
        "method=baseline",
        "method=mlr",
        "preset=small",
        "preset=paper",
        "preset=debug",
        "task=walker_walk",
        "game=Pong",
        "game=tetris",
        *(f"{key}={name}" for key in ("task", "game") for name in FORMS),
    ]
    key = st.sampled_from([*sorted(known), "task", "game", "method", "preset"])
    misspelt = st.builds(
        lambda k, i, c: k[: i % (len(k) + 1)] + c + k[i % (len(k) + 1) + 1 :], key, st.integers(0, 40), st.text(max_size=2)
    )
    sign = st.sampled_from(["", "", "", "", "", "+", "++", "~", "@", "-", " "])
    bad = st.builds(lambda s, k, v: f"{s}{k}={v}", sign, st.one_of(key, key, key, misspelt), odd)
    mixed = st.one_of(good, bad, bad, st.sampled_from(groups), st.text(max_size=12))
    rubbish = st.lists(mixed, min_size=1, max_size=2)
    return st.one_of(st.lists(st.one_of(good, good, good, st.sampled_from(groups)), min_size=1, max_size=3), rubbish, rubbish)


def judge(tree: str, arguments: list[str], runs: Path, thorough: bool) -> bool:
    """True where the settings make a run: `thorough` builds its agent and replay and makes an update, if these are small."""
    package = TREES[tree]
    try:
        config = package.settings.read_config(["preset=debug", f"runs={runs}", *arguments])
        path = package.settings.run_path(config)
        assert config.runs != str(runs) or path.resolve().is_relative_to(runs.resolve())
        build(tree, config, thorough)
    except MISTAKE as error:
        line = " ".join(str(error).split())
        assert len(line) > 10, line
        return False
    return True


def build(tree: str, config, thorough: bool) -> None:
    """As a Trainer does, without the environment."""
    package = TREES[tree]
    device = machine.choose_device(config.device)
    precision = machine.choose_precision(config.precision, device)
    if not thorough:
        return
    need = package.memory.memory(config, 2, precision)
    package.train.require_disk(config.runs, package.settings.run_path(config), need["replay"], need["networks"])
    package.train.machine.require(device, need)
    if sum(need.values()) > 2**24 or device.type != "cpu":
        return
    agent = package.methods.make_agent(config, 2, precision)
    generator = np.random.default_rng(0)
    if tree == "dmcontrol":
        image, steps = config.image, 45
        replay = package.replay.Replay(package.memory.capacity(config), 40, image.stack, image.size, 2, CPU, agent.generator)
        replay.start(generator.integers(0, 256, (image.size, image.size, 3), dtype=np.uint8))
        for n in range(steps):
            frame = generator.integers(0, 256, (image.size, image.size, 3), dtype=np.uint8)
            replay.add(np.zeros(2, np.float32), 1.0, False, n == 40, frame)
        ready = "mlr" not in config or config.mlr.window < 20
    else:
        env, replay = config.env, package.train.make_replay(config, agent)
        if config.train.random_steps <= replay.reserve:
            raise atari_errors.UserError("random_steps must exceed the reserve")
        replay.start(np.zeros((env.size, env.size, 1), np.uint8))
        for _ in range(45):
            frame = generator.integers(0, 256, (env.size, env.size, 1), dtype=np.uint8)
            replay.add(1, package.env.Step(frame, 1.0, 1.0, False, False, False))
        ready = len(replay) > 0
    if ready:
        tree_named(tree).update(agent, replay)


COMMAND_LINES = {"dmcontrol": 400, "atari": 300}


@pytest.mark.parametrize("tree", TREES)
class TestFuzz:
    def test_command_line(self, tree, tmp_path):
        outcomes = []

        @settings(max_examples=COMMAND_LINES[tree], **OPTIONS)
        @given(arguments(tree))
        def run(typed):
            outcomes.append(judge(tree, typed, tmp_path, thorough=len(outcomes) % 5 == 0))

        run()
        assert len(outcomes) >= COMMAND_LINES[tree] and 20 < sum(outcomes) < len(outcomes) - 20  # both kinds were met

    def test_multirun(self, tree, tmp_path):
        """Lists, ranges and choices of values; every combination is checked before one is launched."""
        package, outcomes = TREES[tree], []
        known = declared(tree)
        value = st.one_of(st.sampled_from([*ODD, *FORMS]), st.integers(-3, 40).map(str), st.text(max_size=5))
        listed = st.one_of(
            st.lists(value, min_size=1, max_size=3).map(",".join),
            st.lists(st.integers(0, 9).map(str), min_size=1, max_size=3).map(",".join),
            st.builds("range({},{})".format, st.integers(-2, 9), st.integers(0, 10**9)),
            st.builds("choice({})".format, st.lists(value, max_size=3).map(",".join)),
            st.builds("glob({})".format, value),
        )
        key = st.sampled_from(
            ["seed", "seed", "seed", "task", "game", "method", "preset", "hydra/launcher", "hydra.sweep.dir", *sorted(known)]
        )
        typed = st.lists(st.builds("{}={}".format, key, listed), min_size=1, max_size=3)

        @settings(max_examples=150, **OPTIONS)
        @given(typed)
        def run(typed):
            try:
                multirun.check(
                    package.settings.CONFIGS.parent,
                    ["--multirun", "preset=debug", f"runs={tmp_path}", *typed],
                    package.settings.read_config,
                )
            except MISTAKE as error:
                assert len(str(error)) > 10
                outcomes.append(False)
            else:
                outcomes.append(True)

        run()
        assert len(outcomes) >= 150 and 5 < sum(outcomes) < len(outcomes) - 5

    def test_yaml(self, tree, tmp_path, monkeypatch):
        """A preset of the user's own: odd values under good keys, or another file with its text damaged."""
        package = TREES[tree]
        folder, outcomes = tmp_path / "configs", []
        shutil.copytree(package.settings.CONFIGS, folder)
        texts = {p.relative_to(folder): p.read_text() for p in sorted(folder.rglob("*.yaml"))}
        monkeypatch.setattr(package.settings, "CONFIGS", folder)
        odd = st.one_of(
            st.sampled_from(ODD), st.integers(-3, 50), st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=6),
            st.lists(st.one_of(st.integers(-2, 9), st.text(max_size=3)), max_size=3), st.dates(), st.binary(max_size=3),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        )  # fmt: skip
        block = st.dictionaries(st.one_of(st.sampled_from(sorted(declared(tree))), st.text(max_size=5)), odd, max_size=2)

        @settings(max_examples=200, **OPTIONS)
        @given(st.one_of(block, st.tuples(st.sampled_from(sorted(texts)), st.integers(0, 2**32))))
        def run(case):
            damaged = None
            if isinstance(case, dict):
                values: dict = {"preset": "mine"}
                for key, value in case.items():
                    *outer, last = key.split(".") if key in declared(tree) else [key]
                    inner = values
                    for part in outer:
                        inner = inner.setdefault(part, {})
                    inner[last] = value
                text = "# @package _global_\n" + yaml.safe_dump(values, allow_unicode=True)
                (folder / "preset" / "mine.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
                typed = ["preset=mine"]
            else:
                damaged, number = case
                (folder / damaged).write_text(damage(texts[damaged], random.Random(number)))
                typed = []
            try:
                outcomes.append(judge(tree, typed, tmp_path / "runs", thorough=len(outcomes) % 5 == 0))
            finally:
                (folder / "preset" / "mine.yaml").unlink(missing_ok=True)
                if damaged:
                    (folder / damaged).write_text(texts[damaged])

        run()
        assert len(outcomes) >= 200 and 10 < sum(outcomes) < len(outcomes) - 10

    def test_evaluate(self, tree, tmp_path, monkeypatch):
        """The other entry point, and the settings in a run folder that somebody edited."""
        package = TREES[tree]
        good = yaml.safe_dump(package.settings.configuration.plain(package.settings.read_config(["preset=debug"])))
        run_folder = tmp_path / "run"
        run_folder.mkdir()
        monkeypatch.chdir(tmp_path)
        options = st.sampled_from(["run", "episodes", "video", "device", "seed", "threads", "rum", ""])
        typed = st.builds(lambda k, v: f"{k}={v}", options, st.one_of(st.sampled_from(ODD), st.text(max_size=5), st.integers().map(str)))

        @settings(max_examples=100, **OPTIONS)
        @given(st.lists(typed, max_size=3), st.integers(0, 2**32))
        def run(typed, number):
            (run_folder / "config.yaml").write_text(damage(good, random.Random(number)))
            with pytest.raises(MISTAKE):  # there is no saved policy: it is a mistake in any case
                package.evaluate.main(["run=run", *typed])

        run()

    def test_ctrl_c_while_libraries_are_loaded(self, tree, root):
        command = [sys.executable, "-m", f"{TREES[tree].__name__}.train", "preset=debug", "seed=-1"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root)
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and "libtorch" not in maps.read_text() and "numpy" not in maps.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[1]
        assert process.returncode == 130 and output == "interrupted before the run started\n", output

    @pytest.mark.parametrize("typed", ["episodes=²", "seed=①", "threads=٣٣٣٣٣"])
    def test_digits_that_are_no_numbers(self, tree, typed):
        with pytest.raises(MISTAKE, match="must be a whole number"):
            TREES[tree].evaluate.main(["run=nowhere", typed])

    def test_what_fits_nowhere(self, tree, monkeypatch, capsys):
        wide = {"dmcontrol": "sac.hidden=99999999", "atari": "rainbow.hidden=99999999"}[tree]
        for typed in ([wide], ["runs=/dev/null/x", "preset=debug"]):
            monkeypatch.setattr(sys, "argv", ["train", *typed])
            with pytest.raises(SystemExit) as ending:
                TREES[tree].core.errors.run_main(TREES[tree].train.main)
            said = capsys.readouterr().err
            assert ending.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1, said

    def test_the_process(self, tree, root):
        """The same through the shell: exit code 2 and one line."""
        name = TREES[tree].__name__
        done = subprocess.run([sys.executable, "-m", f"{name}.train", "seed=💥"], capture_output=True, text=True, cwd=root)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr


def damage(text: str, dice: random.Random) -> str:
    """Some characters lost, doubled or changed, or a line moved."""
    for _ in range(dice.randint(1, 3)):
        if not text:
            return text
        at = dice.randrange(len(text))
        kind = dice.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + dice.randint(1, 30) :]
        elif kind == 1:
            text = text[:at] + dice.choice(":{}[]#&*!|>'\"%@`-?,\t\n 0a\x07é") + text[at:]
        elif kind == 2:
            text = text[:at] + chr(dice.randrange(1, 300)) + text[at + 1 :]
        elif kind == 3:
            lines = text.splitlines(keepends=True)
            dice.shuffle(lines)
            text = "".join(lines)
        else:
            text = text[:at]
    return text
