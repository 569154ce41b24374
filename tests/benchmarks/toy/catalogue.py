"""Techniques of the toy: each sets one constant; `stubborn` hangs on a line that `alpha` rewrites."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Catalogue, Sources, Technique, Tunable, Tunables


def _set(path: str, constant: str) -> Technique:
    def apply(sources: Sources, tunables: Tunables) -> Sources:
        return sources | {path: edits.constant(sources[path], constant, tunables["value"])}

    return Technique(
        name=constant.lower(),
        title=f"another {constant}",
        family=path.removesuffix(".py"),
        hypothesis=f"Another {constant} lowers the loss.",
        source="the toy's own manual",
        apply=apply,
        tunables=(Tunable("value", 2.0, 1.5, 9.0),),
        prior_gain=0.02,
        prior_sd=0.03,
    )


def stubborn(sources: Sources, _: Tunables) -> Sources:
    return sources | {"train.py": edits.replace(sources["train.py"], "ALPHA = 1.0", "ALPHA = 1.0\nEXTRA = 2.0")}


def broken_path(sources: Sources, _: Tunables) -> Sources:
    return sources | {"benchmark.toml": "name = 'mine'\n"}


CATALOGUE = Catalogue(
    [
        _set("train.py", "ALPHA"),
        _set("train.py", "BETA"),
        _set("train.py", "GAMMA"),
        _set("model.py", "DELTA"),
        Technique(
            name="stubborn",
            title="an extra constant",
            family="train",
            hypothesis="An extra constant lowers the loss.",
            source="the toy's own manual",
            apply=stubborn,
        ),
        Technique(
            name="greedy",
            title="an own contract",
            family="cheat",
            hypothesis="Another contract lowers the loss.",
            source="the toy's own manual",
            apply=broken_path,
        ),
    ]
)
