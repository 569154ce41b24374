"""What a candidate's losses are held against to choose the positions that are audited first. It scores nothing.

Losses of an earlier commit on the same rows where they are stored; a count of token pairs else. A vocabulary of 8,192
has 67 million pairs, which share 4 million places by a hash; what collides is guessed a little too likely.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

PLACES = 1 << 22
READ = 1 << 24  # tokens of the train data, in stretches spread over it
STRETCH = 1 << 18
PRIOR = 4.0  # counts of the token alone that a pair starts with
_HASH = 2_654_435_761  # Knuth's multiplier


class Reference:
    def __init__(self, train: Path, vocabulary: int, device: torch.device) -> None:
        self._vocabulary, self._device = vocabulary, device
        tokens = torch.from_numpy(_sampled(train)).to(device)
        if int(tokens.max()) >= vocabulary:
            raise ValueError(f"{train.name} holds tokens beyond the vocabulary of {vocabulary}; prepare the data again")
        self._single = torch.bincount(tokens, minlength=vocabulary).float()
        self._pairs = torch.bincount(self._place(tokens[:-1], tokens[1:]), minlength=PLACES).float()

    def losses(self, inputs: NDArray[np.uint16], targets: torch.Tensor, stored: str | None) -> torch.Tensor:
        """Nats, float32 [rows, T]. `stored`: a file of them, used where it is of the same shape."""
        if stored and Path(stored).is_file():
            kept = np.load(stored, allow_pickle=False)
            if kept.shape == tuple(targets.shape):
                return torch.from_numpy(kept.astype(np.float32)).to(self._device)
        before = torch.from_numpy(inputs.astype(np.int64)).to(self._device)
        share = (self._single[targets] + 1) / (self._single.sum() + self._vocabulary)
        seen = self._pairs[self._place(before, targets)]
        return -torch.log((seen + PRIOR * share) / (self._single[before] + PRIOR))

    def _place(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        pair = before * self._vocabulary + after
        return pair if self._vocabulary**2 <= PLACES else (pair * _HASH >> 10) % PLACES


def _sampled(train: Path) -> NDArray[np.int64]:
    """Tokens of the train data, int64 [at most READ]."""
    raw = np.memmap(train, dtype="<u2", mode="r")
    if len(raw) <= READ:
        return raw.astype(np.int64)
    starts = np.linspace(0, len(raw) - STRETCH, READ // STRETCH).astype(np.int64)
    return np.concatenate([raw[start : start + STRETCH] for start in starts]).astype(np.int64)
