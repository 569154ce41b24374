"""Entry of the FORWARD steps (score, audit): the candidate's model answers token batches with scores.

It holds the candidate's code and weights, and no data but the tokens it is asked about. Request: header
`<IIB` (rows, length, last_only) and rows x length bytes. Answer: float32 scores, rows x (length or 1) x vocabulary.
"""

from __future__ import annotations

import mmap
import socket
import struct

import inside_call
import torch
from safetensors.torch import load

BATCH = 32  # rows a forward pass: 32 x 128 x 256 floats stay in the cache of one core


def main() -> None:
    import model as candidate

    network = candidate.build()
    network.load_state_dict(load(mmap.mmap(inside_call.fds["weights"], 0, prot=mmap.PROT_READ)[:]), strict=True)
    network.eval()
    channel = socket.socket(fileno=inside_call.fds["channel"])
    with channel.makefile("rwb") as stream, torch.inference_mode():
        while header := stream.read(9):
            rows, length, last_only = struct.unpack("<IIB", header)
            tokens = torch.frombuffer(bytearray(stream.read(rows * length)), dtype=torch.uint8).view(rows, length)
            for at in range(0, rows, BATCH):
                scores = network(tokens[at : at + BATCH].long()).float()  # [B, T, V]
                if last_only:
                    scores = scores[:, -1:]
                stream.write(scores.contiguous().numpy().data)
            stream.flush()
