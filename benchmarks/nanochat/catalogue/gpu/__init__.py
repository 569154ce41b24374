"""All techniques of the GPU lane. One literal table a person can read."""

from benchmarks.catalogue import Catalogue
from benchmarks.nanochat.catalogue.gpu import attention, embedding, memory, tables

CATALOGUE = Catalogue(
    [
        *tables.TECHNIQUES,
        *embedding.TECHNIQUES,
        *memory.TECHNIQUES,
        *attention.TECHNIQUES,
    ]
)
