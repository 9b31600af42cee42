"""The two trees: one core, nothing shared beside it."""

import ast
import filecmp
from pathlib import Path

import pytest

TREES = ("DMControl", "Atari")


def test_core_is_the_same_to_the_byte(root):
    ours, theirs = (sorted(str(p.relative_to(root / t / "core")) for p in (root / t / "core").rglob("*.py")) for t in TREES)
    assert ours == theirs and len(ours) > 5
    for name in ours:
        assert filecmp.cmp(root / "DMControl/core" / name, root / "Atari/core" / name, shallow=False), f"run scripts/sync_core.sh: {name}"


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("tree", TREES)
def test_no_tree_imports_the_other(root, tree):
    other = {"DMControl": "Atari", "Atari": "DMControl"}[tree]
    for file in (root / tree).rglob("*.py"):
        assert not any(name.split(".")[0] == other for name in imports(file)), file


def test_core_knows_no_environment_and_no_algorithm(root):
    core = root / "DMControl/core"
    for file in core.rglob("*.py"):
        outside = "." * (len(file.relative_to(core).parts) + 1)
        for name in imports(file):
            assert not name.startswith((outside, "dm_control", "ale_py", "gymnasium", "DMControl", "Atari")), (file, name)


def test_the_method_does_without_what_runs_need(root):
    for file in (root / "DMControl/core/method").glob("*.py"):
        assert not any(name.startswith("..run") for name in imports(file)), file
