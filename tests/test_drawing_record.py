"""The drawings of a record: parts of gains, learning curves, and a drawing as a file."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from research.drawing.learning import Curve, learning
from research.drawing.parts import Gain, Share, parts
from research.drawing.sheet import rules, sheet, variables

CSS = """/* look */ :root { --sans: serif; --muted: #111; --surface: #fff; --text: #000; --good: green; --bad: red; }
:root[data-theme="dark"] { --muted: #eee; --surface: #000; --text: #fff; --good: lime; }
svg.one .a { fill: var(--good); } svg.oneself { fill: var(--bad); }
/* svg.one .old { fill: var(--bad); } */ svg.one, svg.one svg { overflow: visible; }
"""


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_parts_stand_on_both_sides_of_zero_with_their_intervals() -> None:
    root = parsed(
        parts([Gain("faster <kernel>", Share(-0.1, 0.05), Share(0.3)), Gain("b", Share(0.2), Share(0.0))], "loss")
    )
    boxes = [
        (box.get("class"), float(box.get("x", "")[:-1]), float(box.get("width", "")[:-1])) for box in root.iter("rect")
    ]
    (_, left, width), (_, zero, third) = boxes[0], boxes[1]
    assert left + width == pytest.approx(zero, abs=0.02) and third == pytest.approx(3 * width, abs=0.05)
    assert [kind for kind, _, _ in boxes] == ["modelling", "throughput"] * 2
    assert len([line for line in root.iter("line") if line.get("class") == "interval"]) == 1
    assert "−0.100 by the model at equal steps, +0.300 by more steps" in (root.get("aria-label") or "")
    assert parts([], "loss") == ""


def test_learning_curves_end_together_in_time_and_apart_in_steps() -> None:
    curves = [
        Curve("baseline", [50, 100], [3.0, 2.0]),
        Curve("candidate", [100, 200], [3.0, 1.0]),
        Curve("x", [1], [1.0]),
    ]
    root = parsed(learning(curves, ("start", "champion"), 20.0, "loss"))
    ends = [re.findall(r"L([\d.]+) ", path.get("d", ""))[-1] for path in root.iter("path")]
    assert ends == ["500.0", "1000.0", "1000.0", "1000.0"]
    assert "start: 1 trials, 100 steps in 20 s" in (root.get("aria-label") or "")
    assert learning(curves[2:], ("start", "champion"), 20.0, "loss") == ""


def test_a_sheet_takes_the_look_of_its_drawing_along_in_both_themes() -> None:
    look = rules(CSS, "one")
    assert look == "svg.one .a{fill: var(--good);}svg.one, svg.one svg{overflow: visible;}"
    style = variables(CSS, look)
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    assert "--good:green" in light and "--good:lime" in dark and "--bad" not in style and "--sans" not in dark
    long = "words " * 40
    root = parsed(sheet('<svg class="one" width="100%" height="100"><g/></svg>', "a < b", long, style + look))
    names = [(child.get("class"), child.text) for child in root if child.tag.endswith("text")]
    assert names[0] == ("title", "a < b") and len(names) == 3, "the caption takes two lines"
    assert float(root.get("height", "")) > 100 and sheet("", "a", "b", "") == ""
    with pytest.raises(ValueError, match="sets no --unknown"):
        variables(CSS, "svg.one{fill:var(--unknown)}")
    with pytest.raises(ValueError, match="height first"):
        sheet("<svg/>", "a", "b", "")
