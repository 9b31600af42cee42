"""Documents: links, settings, metrics and commands that they name exist, and the first page stays short."""

import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from PIL import Image

FIRST_PAGE = 12_500  # bytes, without the table of results, which a script writes


def documents(root: Path) -> list[Path]:
    """Every .md file that is tracked; without git, every one that is not generated."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=root, capture_output=True, text=True)
    if listed.stdout:
        return [root / name for name in listed.stdout.split("\0") if name and (root / name).exists()]
    return [p for p in root.rglob("*.md") if not {".venv", "runs"} & set(p.relative_to(root).parts)]


def prose(page: Path) -> str:
    """The text without code blocks and without comments."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def links(text: str) -> list[str]:
    """Targets of [text](target), ![text](target) and [name]: target."""
    text = re.sub(r"(`+).+?\1", "", text)
    return re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings: lower case, words and hyphens, a number behind a second one of the same name."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(anchor)
    return found | set(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", text))


def dead(page: Path, root: Path) -> list[str]:
    out = []
    for link in links(prose(page)):
        if re.match(r"[a-z][a-z+.-]*:", link):  # another site
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_relative_to(root) or not target.exists():
            out.append(f"{link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(prose(target)):
            out.append(f"{link}: no such heading")
    return out


def test_no_link_is_dead(root):
    pages = documents(root)
    assert root / "README.md" in pages
    found = {str(page.relative_to(root)): dead(page, root) for page in pages}
    assert not any(found.values()), {name: lines for name, lines in found.items() if lines}


def test_the_first_page_is_short(root):
    written = re.sub(r"<!-- results:.*<!-- end of results -->", "", (root / "README.md").read_text(), flags=re.DOTALL)
    size = len(written.encode())
    assert size <= FIRST_PAGE, f"README.md has {size:,} bytes beside its table: move something to the README of its folder"


def test_what_is_named_as_a_script_is_there(root):
    """`./scripts/x.sh` and `python -m a.b.c` in any document."""
    for page in documents(root):
        text = page.read_text()
        for name in re.findall(r"(?<!/)\bscripts/[\w/]+\.(?:sh|py)\b", text):
            assert (root / name).exists(), (page.name, name)
        for name in re.findall(r"python -m ((?:DMControl|Atari|scripts)[\w.]*\w)", text):
            assert (root / name.replace(".", "/")).with_suffix(".py").exists(), (page.name, name)


def test_shown_training_commands_are_accepted(root, tmp_path, monkeypatch):
    """Their settings alone: nothing is trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN_DIR").mkdir()
    (tmp_path / "RUN_DIR/config.yaml").write_text("task: walker_walk")
    for page in documents(root):
        for tree, line in re.findall(r"^python -m (DMControl|Atari)\.train (?!--multirun)(.+)$", page.read_text(), re.MULTILINE):
            config = importlib.import_module(f"{tree}.settings").read_config(shlex.split(line, comments=True))
            assert config.method and config.preset, line


def test_shown_commands_name_their_preset(root):
    """Without one a run takes preset paper, which is days on a CPU."""
    files = [*documents(root), *(root / tree / "train.py" for tree in ("DMControl", "Atari")), *(root / "scripts").glob("run_*.sh")]
    pattern = r"^(?:#\s+)?(?:python -m (?:DMControl|Atari)\.train|(?:\./)?scripts/run_\w+\.sh) .+$"
    shown = [line for file in files for line in re.findall(pattern, file.read_text(), re.MULTILINE)]
    assert len(shown) > 15 and not [line for line in shown if "preset" not in line]


def test_the_preset_that_readme_inherits(root, tmp_path, monkeypatch):
    text = (root / "README.md").read_text()
    name, preset = re.search(r"`configs/dmcontrol/preset/(\w+)\.yaml`.*?```yaml\n(.*?)```", text, re.DOTALL).groups()
    shutil.copytree(root / "configs/dmcontrol", tmp_path / "dmcontrol")
    (tmp_path / f"dmcontrol/preset/{name}.yaml").write_text(preset)
    module = importlib.import_module("DMControl.settings")
    monkeypatch.setattr(module, "CONFIGS", tmp_path / "dmcontrol")
    mine, small = module.read_config([f"preset={name}"]), module.read_config(["preset=small"])
    assert mine.preset == name and mine.image == small.image and mine.encoder == small.encoder
    assert mine.mlr.window == 16 and mine.mlr.mask.ratio == 0.75 and mine.mlr.mask.block == small.mlr.mask.block


def settings(folder: Path) -> set[str]:
    """Every key in any YAML below the folder: "mlr.mask" and "mlr.mask.ratio"."""
    found: set[str] = set()

    def walk(values: dict[str, Any], before: str = "") -> None:
        for key, value in values.items():
            found.add(f"{before}{key}")
            if isinstance(value, dict):
                walk(value, f"{before}{key}.")

    for file in folder.rglob("*.yaml"):
        values = yaml.safe_load(file.read_text())
        walk(values if isinstance(values, dict) else {})  # a set of tasks is a list
    return found


def test_settings_that_documents_name_exist(root):
    """`block.key` or `block.key=value`, where a block of that name exists; a tree's README names its own tree's."""
    for page in documents(root):
        tree = {"DMControl": "dmcontrol", "Atari": "atari"}.get(page.relative_to(root).parts[0], "")
        known = settings(root / "configs" / tree)
        named = set(re.findall(r"`([a-z]+(?:\.[a-z_0-9]+)+)(?:=[^`]*)?`", page.read_text()))
        named = {key for key in named if key.split(".")[0] in known and key.split(".")[-1] not in ("csv", "npz", "py", "yaml")}
        assert not named - known, (page.name, named - known)


@pytest.mark.parametrize("tree", ["DMControl", "Atari"])
def test_every_logged_metric_is_explained(root, tree):
    page = (root / tree / "README.md").read_text()
    groups = "agent|curl|env|eval|final|grad|loss|masks|mlr|model|perf|playvirtual|sac_ae|time|train"
    for file in (root / tree).rglob("*.py"):
        for name in re.findall(rf'"((?:{groups})/[a-z_]+)"', file.read_text()):
            assert f"`{name}`" in page, (file.name, name)


def test_captions_are_those_of_the_animations(root):
    rows = re.findall(r"^\| !\[\w+\]\((\S+\.gif)\) \| (.+) \|$", (root / "results/NOTES.md").read_text(), re.MULTILINE)
    assert {(root / "results" / name).resolve() for name, _ in rows} == set((root / "figs/policies").glob("*.gif"))
    for name, caption in rows:
        with Image.open(root / "results" / name) as animation:
            assert animation.info["comment"].decode() == caption, name


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[a](other.md)", None),
        ("[a](other.md#two-words-of-it)", None),
        ("[a](#here)", None),
        ("[a](other.md#same-1)", None),
        ("![a](picture.png)", "no such file"),
        ("[a](other.md#three)", "no such heading"),
        ("[a](other.md#same-2)", "no such heading"),
        ("[a](other.md#in-code)", "no such heading"),
        ("[a][b]\n\n[b]: gone.md", "no such file"),
        ("[a](../outside.md)", "no such file"),
        ("`[a](gone.md)` [a](https://example.org/#x)", None),
        ("```\n[a](gone.md)\n```", None),
    ],
)
def test_the_check_itself(line, problem, tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    (tmp_path / "outside.md").write_text("")
    (root / "other.md").write_text("# Two `words`, of it\n\n## Same\n\n## Same\n\n```bash\n# in code\n```\n")
    page = root / "page.md"
    page.write_text(f"# Here\n\n{line}\n")
    found = dead(page, root)
    assert [text.split(": ")[1] for text in found] == ([problem] if problem else [])
