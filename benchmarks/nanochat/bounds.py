"""How long the untimed phases of a trial may take and how large its weights may be, for each kind of device."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contract import Preset


@dataclass(frozen=True)
class Bounds:
    """Wall seconds and bytes. `warm_up_asks`: seconds before the clock from which on a reader should look, since a
    warm-up could train on text that the candidate carries; shorter where the commit's compile cache was there."""

    warm_up_wall: float  # everything before the clock: building, compiling, a warm-up on random tokens
    forward_wall: float  # one scoring or auditing process
    weights_bytes: int
    warm_up_asks: float = 0.0
    cached_warm_up_asks: float = 0.0


BOUNDS = {
    "cpu": Bounds(warm_up_wall=30.0, forward_wall=30.0, weights_bytes=256 << 20),
    # A first compile took 37 s on an H200 and a warm one 4 s (torch 2.11): four and ten times that ask for a reader.
    "cuda": Bounds(300.0, 120.0, 8 << 30, warm_up_asks=150.0, cached_warm_up_asks=40.0),
}


def of(preset: Preset) -> Bounds:
    return BOUNDS[preset.device]
