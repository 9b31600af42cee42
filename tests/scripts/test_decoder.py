"""What the parts that MLR adds learn from an encoder that stands still, on a real run."""

import pytest
import torch

from Atari.core.errors import UserError
from Atari.core.run.folder import read_config
from Atari.evaluate import load_agent
from Atari.methods import make_agent
from Atari.train import main as train
from DMControl.core.errors import UserError as ScriptError
from scripts.probes import measurements
from scripts.probes.decoder import main
from scripts.report.page import Page
from scripts.report.probes import decoder_table

SHORT = ("game=boxing", "preset=debug", "env.max_steps=60", "eval.episodes=1", "eval.final_episodes=1", "eval.video=false")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert train([*SHORT, "method=baseline", f"runs={folder}"]) == 0
    return folder / "atari/boxing/baseline-debug/seed1"


def losses(text: str, name: str) -> list[float]:
    return [float(line.split(f"{name} ")[1].split(",")[0]) for line in text.splitlines() if line.startswith("update")]


def test_only_the_added_parts_learn(run, capsys, monkeypatch):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    arguments = [str(run), "updates=60", "steps=200", "threads=1", "rainbow.lr=3e-3"]
    made = []
    monkeypatch.setattr("scripts.probes.decoder.make_agent", lambda *args: made.append(make_agent(*args)) or made[-1])
    assert main(arguments) == 0
    said = capsys.readouterr().out
    share = float(said.split("targets: ")[1].split(" of")[0])
    own, other, constant = (losses(said, name) for name in ("own", "other", "constant"))
    assert share <= 1 and len(own) == len(other) == 7, said
    assert own[-1] < 1.5 * constant[-1] + 0.05, "whatever the encoder, the mean target is there to be learnt"
    assert len(set(constant)) == 1, "the targets stand still"
    (agent,) = made
    saved, _ = load_agent(run, read_config(run), agent.n_actions, agent.network.trunk.precision)
    for ours, theirs in zip(agent.network.state_dict().values(), saved.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), "and so does the encoder"
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before, "the run stays as it is"
    main([*arguments, "untrained=true"])
    drawn = losses(capsys.readouterr().out, "constant")
    assert drawn[0] != constant[0] and not torch.equal(*(next(a.network.parameters()) for a in made))


def test_what_was_read_becomes_rows_and_a_table(run, tmp_path, capsys):
    assert train(["game=boxing", "preset=debug", "eval.video=false", "name=other", "rainbow.adam_eps=1e-8", f"runs={tmp_path}"]) == 0
    other, results = tmp_path / "atari/boxing/mlr-debug/other-seed1", tmp_path / "results"
    apart = [str(run), "updates=6", "steps=200", "threads=1", f"results={results}"]
    for arguments in (apart, apart, [*apart, "untrained=true", "rainbow.lr=3e-3"], [str(other), "logged=true", f"results={results}"]):
        assert main(arguments) == 0
    said = capsys.readouterr().out
    rows = measurements.DECODER.read(results)
    assert [(r["method"], r["name"], r["trained"], r["settings"], r["after"]) for r in rows] == [
        ("baseline", "", measurements.APART_UNTRAINED, "rainbow.lr=3e-3", "6 updates"),
        ("baseline", "", measurements.APART, "", "6 updates"),  # measured twice, one row
        ("mlr", "other", measurements.IN_THE_RUN, "rainbow.adam_eps=1e-08", f"{read_config(other).steps * 4:,} frames"),
    ]
    for row, own in ((rows[1], losses(said, "own")[6]), (rows[2], float(said.split("frames: own ")[1].split(",")[0]))):
        assert float(row["own"]) == own
    page = Page(results, tmp_path)
    decoder_table(page)
    assert f"| boxing | debug | MLR other, seed 1 | {measurements.IN_THE_RUN} | `rainbow.adam_eps=1e-08` |" in "\n".join(page.lines)
    file = results / "decoder.csv"
    file.write_text(file.read_text().replace(rows[1]["own"], "0.0001"))
    with pytest.raises(ScriptError, match="does not match its checksum"):
        main(apart)


def test_mistakes_are_named(run, tmp_path):
    for arguments, says in (
        ([str(run), "logged=true"], "say a run of method=mlr"),
        ([str(run), "logged=true", "rainbow.lr=1"], "no effect with logged=true"),
        ([], "say which run"),
        ([str(run), "updates=-1"], "updates=-1"),
        ([str(run), "mlr.mask.ratoi=1"], "mlr.mask.ratio"),
        ([str(run), "mlr.tau=0.1"], "key mlr.tau is the run's"),
        ([str(run), "encoder.filters=[8,8,8]"], "key encoder.filters is the run's"),
        ([str(tmp_path)], "no config.yaml"),
    ):
        with pytest.raises(UserError, match=says):
            main(arguments)
