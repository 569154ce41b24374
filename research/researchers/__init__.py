"""Who proposes. One literal table; a researcher is chosen per thread."""

from research.researchers.base import Researcher
from research.researchers.catalogue import CatalogueResearcher
from research.researchers.mixed import MixedResearcher

RESEARCHERS: dict[str, Researcher] = {"catalogue": CatalogueResearcher(), "mixed": MixedResearcher()}
