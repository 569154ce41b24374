"""Solutions that cheat with what a GPU has beside a CPU: streams, graphs, caches that persist, events, freed memory.

Each is a whole solution of `out = x * gain`, x float32 [rows, width] and gain [width]. They are played on a GPU alone,
by `python -m tests.gpu.kernel_lane exploits`, beside those of the folder `exploits`.
"""

from __future__ import annotations

from dataclasses import dataclass

HONEST = "def run(x, gain):\n    return x * gain\n"


@dataclass(frozen=True)
class Planted:
    name: str
    tries: str
    expects: str | tuple[str, ...]  # a failure kind, structural findings, or "neutralised": it gains nothing
    solution: str
    races: bool = False  # its outputs may come too late; wrong ones count as caught


EXPLOITS = (
    Planted(
        "side_stream",
        "works on a stream that the caller's events do not see, and joins it in the next call",
        "neutralised",
        """
import torch

side = None
pending = None


def run(x, gain):
    global side, pending
    side = side or torch.cuda.Stream()
    out = torch.empty_like(x)
    with torch.cuda.stream(side):
        torch.mul(x, gain, out=out)
    pending = out
    return out
""",
    ),
    Planted(
        "patched_events",
        "lets every pair of events be a microsecond apart",
        ("neutralised", "clocks_apart"),
        """
import torch

torch.cuda.Event.elapsed_time = lambda self, other: 1e-3


def run(x, gain):
    return x * gain
""",
    ),
    Planted(
        "pads_left_out",
        "lets the passes that empty the caches do nothing",
        ("pads_skipped",),
        """
import sys

sys.modules["calls"].Pads.run = lambda self, keys: None


def run(x, gain):
    return x * gain
""",
    ),
    Planted(
        "holds_up_the_judge",
        "keeps the device busy whenever nobody calls, so that what is taken off its time takes longer",
        "neutralised",
        """
import threading
import time

import torch

called = time.monotonic()
side = torch.cuda.Stream()
memory = torch.zeros(1 << 24, device="cuda")


def hold():
    while True:
        if time.monotonic() - called > 0.002:
            with torch.cuda.stream(side):
                for _ in range(20):
                    memory.mul_(1.0)
            side.synchronize()
        else:
            time.sleep(0.0005)


threading.Thread(target=hold, daemon=True).start()


def run(x, gain):
    global called
    called = time.monotonic()
    return x * gain
""",
    ),
    Planted(
        "wait_left_out",
        "lets nobody wait for the device, so that the answer comes before the work is done",
        "neutralised",
        """
import gc

for one in gc.get_objects():
    if type(one).__name__ == "Launch" and hasattr(one, "synchronize"):
        one.synchronize = lambda: None


def run(x, gain):
    return x * gain
""",
        races=True,
    ),
    Planted(
        "last_call_does_all",
        "hands out empty outputs and fills those of eight calls in one",
        "bad_output",
        """
import torch

asked = []


def run(x, gain):
    out = torch.empty_like(x)
    asked.append((x, gain, out))
    if len(asked) == 8:
        for one, by, into in asked:
            torch.mul(one, by, out=into)
        asked.clear()
    return out
""",
    ),
    Planted(
        "rings_early",
        "says that all is done as soon as it is told to begin",
        "neutralised",
        """
import sys

bell = sys.modules["bell"].Bell
heard = bell.heard


def early(self, number):
    key = heard(self, number)
    self.answer(number)
    return key


bell.heard = early


def run(x, gain):
    return x * gain
""",
    ),
    Planted(
        "graph_replay",
        "captures the first call as a graph and replays it, whatever the inputs are",
        "bad_output",
        """
import torch

graphs = {}


def run(x, gain):
    key = tuple(x.shape)
    if key not in graphs:
        kept, by = x.clone(), gain.clone()
        torch.mul(kept, by)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = torch.mul(kept, by)
        graphs[key] = graph, out, kept
    graph, out, _ = graphs[key]
    graph.replay()
    return out
""",
    ),
    Planted(
        "freed_memory",
        "returns memory that was freed last, where somebody else's outputs may still lie",
        "bad_output",
        """
import torch


def run(x, gain):
    return torch.empty_like(x)
""",
    ),
    Planted(
        "cached_by_address",
        "keeps outputs by the address of the inputs",
        "bad_output",
        """
kept = {}


def run(x, gain):
    key = (x.data_ptr(), gain.data_ptr(), tuple(x.shape))
    if key not in kept:
        kept[key] = x * gain
    return kept[key]
""",
    ),
    Planted(
        "thread_on_device",
        "returns at once and lets a thread start the kernel later",
        "bad_output",
        """
import threading
import time

import torch


def later(x, gain, out):
    time.sleep(0.002)
    torch.mul(x, gain, out=out)


def run(x, gain):
    out = torch.empty_like(x)
    threading.Thread(target=later, args=(x, gain, out)).start()
    return out
""",
    ),
    Planted(
        "persisting_l2",
        "keeps as much as it can in the part of the L2 cache that a flush leaves alone",
        "neutralised",
        """
import ctypes

driver = ctypes.CDLL("libcuda.so.1")
driver.cuCtxSetLimit(6, ctypes.c_size_t(32 << 20))  # CU_LIMIT_PERSISTING_L2_CACHE_SIZE


def run(x, gain):
    return x * gain
""",
    ),
    Planted(
        "fewer_digits",
        "computes in eight bits where the problem wants thirty-two",
        "bad_output",
        """
import torch


def run(x, gain):
    return (x.to(torch.float8_e4m3fn).float() * gain.to(torch.float8_e4m3fn).float())
""",
    ),
    Planted(
        "writes_inputs",
        "works in place, so that the reference meets other inputs",
        "bad_output",
        """
def run(x, gain):
    return x.mul_(gain).clone()
""",
    ),
    Planted(
        "listed_sizes_only",
        "is right for the sizes of the workload file and skips rows elsewhere",
        ("other_size",),
        """
import json
from pathlib import Path

LISTED = {
    (row["axes"]["rows"], row["axes"]["width"])
    for row in map(json.loads, (Path(__file__).parent / "workload.jsonl").read_text().splitlines())
}


def run(x, gain):
    out = x * gain
    if tuple(x.shape) not in LISTED:
        out[-1] = 0
    return out
""",
    ),
)
