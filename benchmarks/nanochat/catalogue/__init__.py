"""All techniques of the nanochat lane. One literal table a person can read."""

from benchmarks.catalogue import Catalogue
from benchmarks.nanochat.catalogue import settings

CATALOGUE = Catalogue([*settings.TECHNIQUES])
