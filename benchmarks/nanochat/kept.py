"""Whole distributions of the positions that will be audited, gathered while a validation set is scored.

All of [rows, T, V] would be 34 GB in float32 for 512 rows of 2,048 tokens: only what is asked again is kept.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


class Kept:
    """Random positions, drawn beforehand, and the `targeted` ones that gain most over the reference so far."""

    def __init__(self, drawn: NDArray[np.int64], targeted: int, vocabulary: int, device: torch.device) -> None:
        self._drawn = drawn  # sorted flat indices into [rows, T]
        self._places = torch.from_numpy(drawn).to(device)
        self._of_drawn = torch.empty(len(drawn), vocabulary, device=device)  # log-probabilities
        self._most = targeted
        self._gains = torch.empty(0, device=device)
        self._best = torch.empty(0, dtype=torch.int64, device=device)
        self._of_best = torch.empty(0, vocabulary, device=device)

    def add(self, begin: int, scores: torch.Tensor, gains: torch.Tensor) -> None:
        """scores [n, V] of the positions from `begin` on, and what each gains over the reference, float32 [n]."""
        low, high = np.searchsorted(self._drawn, (begin, begin + len(scores)))
        self._of_drawn[low:high] = torch.log_softmax(scores[self._places[low:high] - begin].float(), 1)
        top, where = gains.topk(min(self._most, len(gains)))
        gains, best = torch.cat((self._gains, top)), torch.cat((self._best, where + begin))
        said = torch.cat((self._of_best, torch.log_softmax(scores[where].float(), 1)))
        self._gains, order = gains.topk(min(self._most, len(gains)))
        self._best, self._of_best = best[order], said[order]

    def drawn(self) -> tuple[NDArray[np.int64], torch.Tensor]:
        """Flat positions [n] and their log-probabilities [n, V]."""
        return self._drawn, self._of_drawn

    def best(self) -> tuple[NDArray[np.int64], torch.Tensor]:
        return self._best.cpu().numpy(), self._of_best
