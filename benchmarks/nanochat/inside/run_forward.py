"""Entry of the FORWARD steps (score, audit) of the byte lane: the candidate's model answers token batches with scores.

It holds the candidate's code and weights, and no data but the tokens it is asked about. Question: header
`<IIB` (rows, length, what) and rows x length bytes. Answer: float32 scores, rows x length x vocabulary; to CAN_STEP one
byte. FIRST and NEXT feed one token a row to the model's `step`, see harness.py.
"""

from __future__ import annotations

import socket
import struct

import inside_call
import torch
from weightfile import read

BATCH = 32  # rows a forward pass: 32 x 128 x 256 floats stay in the cache of one core
WHOLE, FIRST, NEXT, CAN_STEP = range(4)


def main() -> None:
    import model as candidate

    network = candidate.build()
    network.load_state_dict(read(inside_call.fds["weights"]), strict=True)
    network.eval()
    channel, state = socket.socket(fileno=inside_call.fds["channel"]), None
    with channel.makefile("rwb") as stream, torch.inference_mode():
        while header := stream.read(9):
            rows, length, what = struct.unpack("<IIB", header)
            if what == CAN_STEP:
                stream.write(bytes([callable(getattr(network, "step", None))]))
                stream.flush()
                continue
            tokens = torch.frombuffer(bytearray(stream.read(rows * length)), dtype=torch.uint8).view(rows, length)
            if what == WHOLE:
                for at in range(0, rows, BATCH):
                    scores = network(tokens[at : at + BATCH].long())  # [B, T, V]
                    stream.write(scores.float().contiguous().numpy().data)
            else:
                scores, state = network.step(tokens[:, 0].long(), None if what == FIRST else state)  # [B, V]
                stream.write(scores.float().contiguous().numpy().data)
            stream.flush()
