"""The loader: rows of the text in a new order every epoch, on the device before they are asked for.

A thread of its own gathers the rows into pinned memory and copies them on a stream of its own, while the GPU computes.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch

AHEAD = 3  # batches


class Loader:
    """Endless iterator of (inputs, targets), each int64 [rows, length]."""

    def __init__(self, tokens, rows, length, seed, device):  # tokens: uint16 [n], ids below 32,768
        self.windows = tokens.view(torch.int16).unfold(0, length + 1, 1)  # [n - length, length + 1], a view
        self.rows, self.length, self.device = rows, length, device
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.coming = deque(self.thread.submit(self.load) for _ in range(AHEAD))

    def __iter__(self):
        return self

    def __next__(self):
        self.coming.append(self.thread.submit(self.load))
        batch, arrived = self.coming.popleft().result()
        if arrived is not None:
            current = torch.cuda.current_stream()
            current.wait_event(arrived)
            batch.record_stream(current)  # its memory is not reused before this stream is through with it
        inputs = batch[:, :-1].contiguous()
        targets = batch[:, 1:].contiguous()
        return inputs, targets

    def load(self):  # -> int64 [rows, length + 1] and the event of its arrival
        batch = self.windows[self.next_starts()]
        if self.stream is None:
            return batch.long(), None
        with torch.cuda.stream(self.stream):
            batch = batch.pin_memory().to(self.device, non_blocking=True).long()
            return batch, self.stream.record_event()

    def next_starts(self):  # -> int64 [rows]; every epoch cuts the text at other places
        while len(self.order) < self.rows:
            first = int(torch.randint(min(self.length, len(self.windows)), (), generator=self.generator))
            starts = torch.arange(first, len(self.windows), self.length)
            epoch = starts[torch.randperm(len(starts), generator=self.generator)]
            self.order = torch.cat((self.order, epoch))
        starts, self.order = self.order[: self.rows], self.order[self.rows :]
        return starts
