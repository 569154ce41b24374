"""The mixed researcher: each idea is asked of the catalogue or of a model, whoever brings most for its cost.

The loop chooses by the rows (research.loop.decide) and asks the chosen one by its own name; without models that is the
catalogue. Here stands only what a thread that mixes is called, and that its code need not ship with the lab.
"""

from __future__ import annotations

from research.researchers.catalogue import CatalogueResearcher


class MixedResearcher(CatalogueResearcher):
    name = "mixed"
    ships_code = False
    holds_sessions = True
