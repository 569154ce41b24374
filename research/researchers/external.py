"""The external researcher: an agent outside, over the HTTP API or the MCP server. It is never asked; it hands in."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.catalogue import Sources, Step
from benchmarks.edits import DoesNotApply
from research.researchers.base import Draft, NothingToPropose, View


class ExternalResearcher:
    name = "external"
    ships_code = False

    def propose(self, view: View) -> Draft:
        raise NothingToPropose("ideas of this thread come from an agent outside")

    def implement(self, view: View, kind: str, steps: Sequence[Step]) -> tuple[Sources, tuple[Step, ...]]:
        raise DoesNotApply("changes of this thread are handed in")
