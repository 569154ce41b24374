"""Whether outputs are right, as the official harness decides it. Its quirks are kept, each in a place of its own:

- everything is compared as float32: integers beyond 2**24 and float64 lose their last digits (`as_compared`);
- a NaN or infinity on either side fails, even where both have it (`not_finite`); `allow_negative_inf` excuses those
  elements where both are -inf, and only those;
- zeros everywhere fail where the reference is not all zero, however wide the tolerance (`all_zero`);
- a share of elements, 1 % by default, may be wrong by any amount unless `max_error_cap` is set (`count`);
- an output without elements passes;
- the relative error, which is only reported, divides by at least `max_atol`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from benchmarks.kernels.formats.trace import Correctness, Status, finite
from benchmarks.kernels.formats.workload import Tolerance


@dataclass(frozen=True)
class Comparison:
    """`correctness` is there for PASSED and INCORRECT_NUMERICAL, as in a trace; `reason` is empty for PASSED."""

    status: Status
    correctness: Correctness | None
    reason: str = ""


def compare(
    outputs: Mapping[str, torch.Tensor], references: Mapping[str, torch.Tensor], tolerance: Tolerance
) -> Comparison:
    """All outputs against those of the reference, by name. Shape and dtype are looked at first, and exactly."""
    if missing := [name for name in references if name not in outputs]:
        return Comparison(Status.INCORRECT_SHAPE, None, f"{missing[0]} is missing")
    for name, reference in references.items():
        output = outputs[name]
        if output.shape != reference.shape:
            shapes = f"{tuple(output.shape)}, not {tuple(reference.shape)}"
            return Comparison(Status.INCORRECT_SHAPE, None, f"{name} has the shape {shapes}")
        if output.dtype != reference.dtype:
            return Comparison(Status.INCORRECT_DTYPE, None, f"{name} is {output.dtype}, not {reference.dtype}")
    found = {name: compare_one(outputs[name], reference, tolerance) for name, reference in references.items()}
    all_of = [one for one, _ in found.values()]
    correctness = Correctness(
        max((one.max_relative_error for one in all_of), default=0.0),
        max((one.max_absolute_error for one in all_of), default=0.0),
        any(one.has_nan for one in all_of),
        any(one.has_inf for one in all_of),
    )
    reasons = [f"{name}: {reason}" for name, (_, reason) in found.items() if reason]
    status = Status.INCORRECT_NUMERICAL if reasons else Status.PASSED
    return Comparison(status, correctness, "; ".join(reasons))


def compare_one(output: torch.Tensor, reference: torch.Tensor, tolerance: Tolerance) -> tuple[Correctness, str]:
    """Of tensors of one shape: the errors, and why they fail (empty: they pass)."""
    got, want = as_compared(output), as_compared(reference)
    both = (got == -torch.inf) & (want == -torch.inf) if tolerance.allow_negative_inf else None
    if kind := not_finite(got, want, both):
        return Correctness(has_nan=kind == "NaN", has_inf=kind != "NaN"), f"holds {kind}"
    if all_zero(got, want):
        size = finite(float(torch.linalg.vector_norm(want)))
        return Correctness(size, size), "is all zero where the reference is not"
    if both is not None:
        got, want = got[~both], want[~both]
    if got.numel() == 0:
        return Correctness(), ""
    error = (got - want).abs()
    largest = float(error.max())
    relative = float((error / want.abs().clamp(min=tolerance.max_atol)).max())
    return Correctness(finite(relative), finite(largest)), count(error, want, tolerance, largest)


def as_compared(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to(torch.float32)


def not_finite(got: torch.Tensor, want: torch.Tensor, excused: torch.Tensor | None) -> str:
    """'NaN', 'infinity' or '' over both sides; NaN is told before infinity."""
    for side in (got, want):
        if bool(side.isnan().any()):
            return "NaN"
    for side in (got, want):
        infinite = side.isinf() if excused is None else side.isinf() & ~excused
        if bool(infinite.any()):
            return "infinity"
    return ""


def all_zero(got: torch.Tensor, want: torch.Tensor) -> bool:
    return not bool(got.any()) and bool(want.any())


def count(error: torch.Tensor, want: torch.Tensor, tolerance: Tolerance, largest: float) -> str:
    """Why the elements fail: too few within |error| <= atol + rtol * |reference|, or one beyond the cap."""
    allowed = tolerance.max_atol + tolerance.max_rtol * want.abs()
    exceeding = int(((error > allowed) | ~error.isfinite()).sum())
    matched = 1.0 - exceeding / error.numel()
    if matched < tolerance.required_matched_ratio:
        return f"{matched:.4%} of the elements match, {tolerance.required_matched_ratio:.4%} are required"
    if tolerance.max_error_cap is not None and largest > tolerance.max_error_cap:
        return f"one element is off by {largest:g}, the cap is {tolerance.max_error_cap:g}"
    return ""
