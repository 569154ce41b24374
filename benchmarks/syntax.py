"""Parsing Python sources: one at a time.

CPython 3.11 keeps the recursion depth of the tree that it builds in a place that all threads share; two threads that
parse at once end in `SystemError: AST constructor recursion depth mismatch` (github.com/python/cpython/issues/106905).
"""

from __future__ import annotations

import ast
from threading import Lock

one_at_a_time = Lock()


def parse(source: str | bytes, path: str = "<unknown>") -> ast.Module:
    """The syntax tree. Raises SyntaxError or ValueError as `ast.parse` does."""
    with one_at_a_time:
        return ast.parse(source, path)
