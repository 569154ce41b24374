"""All techniques of the CPU lane. One literal table a person can read."""

from benchmarks.catalogue import Catalogue
from benchmarks.nanochat.catalogue.cpu import (
    architecture,
    attention,
    data,
    embedding,
    ngrams,
    optimizer,
    schedule,
)

CATALOGUE = Catalogue(
    [
        *architecture.TECHNIQUES,
        *attention.TECHNIQUES,
        *embedding.TECHNIQUES,
        *ngrams.TECHNIQUES,
        *optimizer.TECHNIQUES,
        *schedule.TECHNIQUES,
        *data.TECHNIQUES,
    ]
)
