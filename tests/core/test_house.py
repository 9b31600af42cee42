"""The two trees: one core, nothing shared beside it."""

import ast
import filecmp
import subprocess
import sys
from pathlib import Path

import pytest

TREES = ("DMControl", "Atari")


def test_core_is_the_same_to_the_byte(root):
    cores = [[*(root / t / "core").rglob("*.py"), *(root / t / "core").rglob("*.c")] for t in TREES]
    ours, theirs = (sorted(str(p.relative_to(root / t / "core")) for p in files) for t, files in zip(TREES, cores, strict=True))
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


def sources(root: Path) -> list[Path]:
    return [file for folder in (*TREES, "scripts", "tests") for file in sorted((root / folder).rglob("*.py"))]


def test_files_and_functions_can_be_taken_in(root):
    long = []
    for file in sources(root):
        text = file.read_text()
        lines = len(text.splitlines())
        long += [f"{file.relative_to(root)}: {lines} lines"] if lines > 350 else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{file.relative_to(root)}: {node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert not long


def module_name(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(file: Path, root: Path, known: set[str]) -> set[str]:
    """The project's modules that a file imports, wherever in the file."""
    package = module_name(file, root).split(".")
    package = package if file.name == "__init__.py" else package[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= (names & known) or {module}
    return found & known


def test_no_import_goes_in_a_circle(root):
    files = {module_name(file, root): file for file in sources(root)}
    graph = {name: imported_modules(file, root, set(files)) - {name} for name, file in files.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("tree", TREES)
def test_imports_point_one_way(root, tree):
    """train -> agents, methods -> core: nothing imports train, and an agent does not know the methods."""
    known = {module_name(file, root) for file in (root / tree).rglob("*.py")}
    for file in (root / tree).rglob("*.py"):
        name, found = module_name(file, root), imported_modules(file, root, known)
        assert f"{tree}.train" not in found, name
        assert not name.startswith(f"{tree}.agents") or not any(other.startswith(f"{tree}.methods") for other in found), name


def test_installed_tests_of_another_project_do_not_stand_in_for_ours(root, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(root)!r}, {str(tmp_path)!r}]; from tests import plain, on_meta, on_gpu"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
