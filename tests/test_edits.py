"""Anchored edits: they land where they say, or refuse in one line; the result is always Python."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import edits
from benchmarks.edits import DoesNotApply

SOURCE = '''"""A module."""

import math

import torch

WIDTH = 64  # of the model
RATE = 1e-3


class Model:
    def forward(self, x):
        x = self.first(x)
        x = x + 1
        return x

    def loss(self, x):
        x = x + 1
        return x


def train(
    steps,
):
    model = Model()
    print(
        "begin",
        steps,
    )
    return model
'''


def test_lines_go_after_before_and_in_the_place_of_an_anchor_with_its_indentation() -> None:
    assert "        x = self.first(x)\n        x = x * 2\n" in edits.after(SOURCE, "x = self.first(x)", "x = x * 2")
    inside = edits.before(SOURCE, "return x", "if x:\n    x = -x", inside="Model.loss")
    assert "        x = x + 1\n        if x:\n            x = -x\n        return x\n" in inside
    assert inside.count("x = -x") == 1 and inside.index("x = -x") > inside.index("def loss")
    assert "x = x - 1" in edits.replace(SOURCE, "x = x + 1", "x = x - 1", inside="Model.forward")


def test_an_anchor_stands_for_its_whole_statement_and_may_be_a_beginning() -> None:
    edited = edits.after(SOURCE, "print(...", "model.train()", inside="train")
    assert "        steps,\n    )\n    model.train()\n" in edited
    assert "print" not in edits.replace(SOURCE, "print(...", "pass", inside="train")
    assert edits.has(SOURCE, "model = ...") and not edits.has(SOURCE, "model = M")


@pytest.mark.parametrize(
    ("anchor", "inside", "message"),
    [
        ("return x", "", "stands 2 times in the file, not once"),
        ("nothing", "", "stands 0 times in the file, not once"),
        ("return x", "Model.backward", "there is no single Model.backward"),
        ("return x", "train", "stands 0 times in train"),
    ],
)
def test_an_anchor_that_is_not_there_once_is_refused(anchor: str, inside: str, message: str) -> None:
    for edit in (edits.after, edits.before, edits.replace):
        with pytest.raises(DoesNotApply, match=message) as refusal:
            edit(SOURCE, anchor, "pass", inside=inside)
        assert "\n" not in str(refusal.value)


def test_an_edit_that_makes_no_python_is_refused() -> None:
    with pytest.raises(DoesNotApply, match="no valid Python"):
        edits.replace(SOURCE, "WIDTH = 64  # of the model", "WIDTH = (")
    with pytest.raises(DoesNotApply, match="not valid Python"):
        edits.after("def (", "x", "y")


def test_swap_wants_its_fragment_exactly_once() -> None:
    assert "self.second(x)" in edits.swap(SOURCE, "self.first", "self.second")
    assert edits.swap(SOURCE, "x + 1", "x + 2", inside="Model.loss").count("x + 2") == 1
    with pytest.raises(DoesNotApply, match="2 times"):
        edits.swap(SOURCE, "x + 1", "x + 2")


def test_a_constant_is_set_and_keeps_its_comment() -> None:
    assert "WIDTH = 128  # of the model\n" in edits.constant(SOURCE, "WIDTH", 128)
    assert "RATE = 0.003\n" in edits.constant(SOURCE, "RATE", 3e-3)
    for name in ("HEIGHT", "model"):
        with pytest.raises(DoesNotApply, match=f"no constant {name}"):
            edits.constant(SOURCE, name, 1)
    with pytest.raises(DoesNotApply):
        edits.constant("A = (\n    1\n)\n", "A", 2)


def test_new_constants_imports_and_definitions_find_their_place() -> None:
    edited = edits.new_constant(SOURCE, "DEPTH", 4, "layers")
    assert "RATE = 1e-3\nDEPTH = 4  # layers\n" in edited
    with pytest.raises(DoesNotApply, match="exists already"):
        edits.new_constant(edited, "DEPTH", 5, "again")
    with pytest.raises(DoesNotApply, match="no constants"):
        edits.new_constant("x = 1\n", "DEPTH", 5, "none")
    imported = edits.new_import(SOURCE, "import torch.nn.functional as F")
    assert "import torch\nimport torch.nn.functional as F\n" in imported
    assert edits.new_import(imported, "import torch.nn.functional as F") == imported
    assert "import random\nimport math\n" in edits.new_import(SOURCE, "import random")
    assert edits.append(SOURCE, "def extra():\n    return 1").endswith("\n\n\ndef extra():\n    return 1\n")
    defined = edits.define_before(SOURCE, "train", "def helper():\n    return 1")
    assert "def helper():\n    return 1\n\n\ndef train(" in defined
    with pytest.raises(DoesNotApply, match="no function or class"):
        edits.define_before(SOURCE, "nothing", "pass")


@settings(max_examples=50, deadline=None)
@given(st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20))
def test_any_value_comes_back_from_a_constant(value: object) -> None:
    edited = edits.constant("# ü\nA, Ü = 0, 'ü'\nB = 'ü'  # a comment\nC = 3\n", "B", value)
    last = {node.targets[0].id: node.value for node in ast.parse(edited).body[1:]}  # type: ignore[attr-defined]
    assert ast.literal_eval(last["B"]) == value and edited.count("# a comment") == 1 and "C = 3\n" in edited


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["x = x + 1", "y = 2", "pass", "", "# note"]), max_size=8))
def test_an_edit_leaves_every_other_line_alone(body: list[str]) -> None:
    lines = [f"    {line}" if line else "" for line in [*body, "z = 0"]]
    source = "\n".join(["def f(x, y):", *lines, "    return z"]) + "\n"
    edited = edits.before(source, "z = 0", "w = 1", inside="f")
    assert [line for line in edited.splitlines() if line != "    w = 1"] == source.splitlines()


def test_a_comment_right_above_an_anchor_can_go_with_it() -> None:
    source = "def f():\n    # kept\n    a = 1\n    # two lines\n    # of it\n    b = a\n    return b\n"
    assert edits.without_comment(source, "b = ...", "f") == "def f():\n    # kept\n    a = 1\n    b = a\n    return b\n"
    assert edits.without_comment(source, "return b", "f") == source
