"""Techniques that change one number of the start."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables


def learning_rate(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.constant(sources["optim.py"], "LEARNING_RATE", tunables["rate"])
    return sources | {"optim.py": optim}


def batch_size(sources: Sources, tunables: Tunables) -> Sources:
    train = edits.constant(sources["train.py"], "BATCH_SIZE", tunables["rows"])
    return sources | {"train.py": train}


TECHNIQUES = (
    Technique(
        name="learning_rate",
        title="another learning rate",
        family="optimizer",
        hypothesis="A higher learning rate reaches a lower loss within the budget.",
        source="Smith 2017, Cyclical Learning Rates for Training Neural Networks",
        apply=learning_rate,
        tunables=(Tunable("rate", 3e-3, 5e-4, 2e-2, log=True),),
        prior_gain=0.02,
        prior_sd=0.03,
    ),
    Technique(
        name="batch_size",
        title="another batch size",
        family="data",
        hypothesis="Smaller batches make more steps of the same budget.",
        source="McCandlish et al. 2018, An Empirical Model of Large-Batch Training",
        apply=batch_size,
        tunables=(Tunable("rows", 8, 4, 64, log=True, integer=True),),
        prior_gain=0.02,
        prior_sd=0.03,
    ),
)
