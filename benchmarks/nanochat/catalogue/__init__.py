"""All techniques of the nanochat lane. One literal table a person can read."""

from benchmarks.catalogue import Catalogue
from benchmarks.nanochat.catalogue import (
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
