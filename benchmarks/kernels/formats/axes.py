"""Axes of a problem and the integral expressions over them.

An expression may use + - * / // % **, unary signs, parentheses, whole numbers and names of axes. It is walked, never
evaluated by Python, with exact fractions and a bound on every intermediate value.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from benchmarks.kernels.formats.fields import integer, mapping, optional_text, shown, text, wrong
from benchmarks.syntax import one_at_a_time

LARGEST = 1 << 48  # of an axis and of any value on the way: no tensor has a longer axis
LONGEST = 400  # characters of an expression
DEEPEST = 40
REMEDY = "use + - * / // % ** with whole numbers and names of axes"

OPERATORS: Mapping[type[ast.AST], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Const:
    value: int
    description: str = ""


@dataclass(frozen=True)
class Var:
    """Given by each workload."""

    description: str = ""


@dataclass(frozen=True)
class Expr:
    expression: str
    description: str = ""


Axis = Const | Var | Expr


def parse_axis(raw: object, where: str) -> Axis:
    fields = mapping(raw, where)
    description = optional_text(fields.get("description"), f"{where}.description") or ""
    kind = fields.get("type")
    if kind == "const":
        return Const(integer(fields.get("value"), f"{where}.value", 0, LARGEST), description)
    if kind == "var":
        return Var(description)
    if kind == "expr":
        expression = text(fields.get("expression"), f"{where}.expression")
        parse_expression(expression, f"{where}.expression")
        return Expr(expression, description)
    return wrong(f"{where}.type", f"is {shown(kind)}", "it must be const, var or expr")


def parse_expression(expression: str, where: str) -> ast.expr:
    if len(expression) > LONGEST:
        wrong(where, f"longer than {LONGEST} characters", REMEDY)
    try:
        return _parsed(expression.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        wrong(where, f"{shown(expression)} is no expression", REMEDY)


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> ast.expr:
    with one_at_a_time:
        return ast.parse(expression, mode="eval").body


def names(expression: str, where: str) -> set[str]:
    """The axes an expression reads."""
    return {node.id for node in ast.walk(parse_expression(expression, where)) if isinstance(node, ast.Name)}


def evaluate(expression: str, values: Mapping[str, int], where: str) -> int:
    """The value of an expression, a whole number from 0 to LARGEST."""
    value = _walk(parse_expression(expression, where), values, where, 0)
    if value.denominator != 1 or value < 0:
        wrong(where, f"{shown(expression)} gives {shown(str(value))}", "it must give a whole number of 0 or more")
    return int(value)


def _walk(node: ast.expr, values: Mapping[str, int], where: str, depth: int) -> Fraction:
    if depth > DEEPEST:
        wrong(where, "nested too deep", REMEDY)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return _bounded(Fraction(node.value), where)
    if isinstance(node, ast.Name):
        if node.id not in values:
            wrong(where, f"there is no axis {shown(node.id)}", "declare it among the axes")
        return Fraction(values[node.id])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _walk(node.operand, values, where, depth + 1)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _combine(node.op, _walk(node.left, values, where, depth + 1),
                        _walk(node.right, values, where, depth + 1), where)  # fmt: skip
    return wrong(where, f"{type(node).__name__} is not allowed in an expression", REMEDY)


def _combine(op: ast.operator, left: Fraction, right: Fraction, where: str) -> Fraction:
    if isinstance(op, ast.Pow):
        # Bounded before it is computed: 9**9**9 has 369 million digits.
        size = max(abs(left.numerator), left.denominator).bit_length()
        if right.denominator != 1 or abs(right) * size > 256 or (left == 0 and right < 0):
            wrong(where, f"the power {shown(str(left))} ** {shown(str(right))} cannot be used", "write the number")
        return _bounded(Fraction(left ** int(right)), where)
    if type(op) not in OPERATORS:
        wrong(where, f"{type(op).__name__} is not allowed in an expression", REMEDY)
    if right == 0 and isinstance(op, ast.Div | ast.FloorDiv | ast.Mod):
        wrong(where, "division by zero", "look at the axes it divides by")
    return _bounded(Fraction(OPERATORS[type(op)](left, right)), where)


def _bounded(value: Fraction, where: str) -> Fraction:
    if abs(value) > LARGEST or value.denominator > LARGEST:
        wrong(where, f"a value beyond {LARGEST}", "no tensor is that large")
    return value
