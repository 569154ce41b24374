"""Who proposes. One literal table; a researcher is chosen per thread."""

from research.researchers.base import Guest, Researcher
from research.researchers.catalogue import CatalogueResearcher
from research.researchers.mixed import MixedResearcher

RESEARCHERS: dict[str, Researcher] = {
    "catalogue": CatalogueResearcher(),
    "llm": Guest("llm", holds_sessions=True),
    "mixed": MixedResearcher(),
    "external": Guest("external"),
    "imported": Guest("imported"),  # what was found elsewhere: proposes nothing
}

OFFERED = tuple(name for name in RESEARCHERS if name != "imported")  # to whoever begins a thread
