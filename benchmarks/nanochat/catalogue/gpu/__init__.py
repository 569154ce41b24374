"""All techniques of the GPU lane. One literal table a person can read."""

from benchmarks.catalogue import Catalogue
from benchmarks.nanochat.catalogue.gpu import (
    architecture,
    attention,
    chain,
    chain_optimizer,
    embedding,
    evaluation,
    loss,
    memory,
    optimizer,
    schedule,
    speed,
    tables,
)

CATALOGUE = Catalogue(
    [
        *schedule.TECHNIQUES,
        *tables.TECHNIQUES,
        *embedding.TECHNIQUES,
        *memory.TECHNIQUES,
        *attention.TECHNIQUES,
        *architecture.TECHNIQUES,
        *optimizer.TECHNIQUES,
        *loss.TECHNIQUES,
        *evaluation.TECHNIQUES,
        *chain_optimizer.TECHNIQUES,
        *chain.TECHNIQUES,
        *speed.TECHNIQUES,
    ]
)
