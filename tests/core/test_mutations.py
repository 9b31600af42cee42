"""The mistakes of tests/mutations can still be made. `python -m tests.mutate` makes them."""

import ast
import functools
from collections import Counter

import pytest

from tests import mutate

NAMES = sorted(file.stem for file in mutate.FOLDER.glob("*.yaml"))


@functools.cache
def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_can_be_made_and_has_its_test(root, name):
    entries = mutate.read(name)
    assert all(list(entry) == ["item", "mistake", "file", "old", "new", "test"] for entry in entries)
    assert [entry["item"] for entry in entries] == sorted(entry["item"] for entry in entries)
    assert max(Counter((entry["file"], entry["new"], entry["test"]) for entry in entries).values()) == 1
    for entry in entries:
        text = (root / entry["file"]).read_text()
        assert mutate.mutated(text, entry) != text, entry["mistake"]
        file, function = entry["test"].split("::")
        assert function in functions(root / file), entry["mistake"]


def test_every_item_of_a_method_has_a_mistake():
    items = {name: {entry["item"] for entry in mutate.read(name)} for name in NAMES}
    items["dmcontrol_spr"] |= items.pop("dmcontrol_playvirtual")  # one list for both
    assert all(found == set(range(1, 11)) for found in items.values()), items


def test_a_text_that_is_not_there_once_is_refused():
    entry = {"file": "a.py", "old": "x = 1", "new": "x = 2"}
    assert mutate.mutated("y = 1\nx = 1\n", entry) == "y = 1\nx = 2\n"
    for text in ("y = 1\n", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match="times, not once"):
            mutate.mutated(text, entry)
