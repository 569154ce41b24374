"""The judge's fused kernel against its naive way, in Triton's interpreter. Run by tests/test_losses.py."""

from __future__ import annotations

import pytest
import torch

from benchmarks.nanochat import losses


@pytest.mark.parametrize(("rows", "width"), [(5, 512), (3, 63), (2, 1000)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_fused_kernel_says_what_the_naive_one_says(rows: int, width: int, dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(rows)
    scores = (torch.randn(rows, width, generator=drawn) * 9 - 40).to(dtype)
    targets = torch.randint(width, (rows,), generator=drawn)
    wanted = torch.nn.functional.cross_entropy(scores.double(), targets, reduction="none").float()
    torch.testing.assert_close(losses.naive(scores, targets), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(losses.fused(scores, targets), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_spoils_its_row_and_no_other(broken: float) -> None:
    scores, targets = torch.randn(3, 60), torch.tensor([1, 2, 3])
    scores[1, 50] = broken
    for found in (losses.naive(scores, targets), losses.fused(scores, targets)):
        assert torch.isnan(found).tolist() == [False, True, False]
