"""The judge of the kernel lane: draws inputs, holds the references, says whether outputs are right. Protected.

A process of its own, outside every sandbox. Inputs are drawn from a seed that no candidate sees, after it was imported,
anew for every call; reference outputs exist in this process alone. Inputs travel to the candidate in a memory file,
its outputs come back in another, which is poisoned with NaN before. The reference is run on the same inputs and timed
by this process's own CPU clock.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import math
import mmap
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # started by its path, outside any package

from benchmarks.kernels.bounds import BoundError, Peaks, Work, bound_ms  # noqa: E402
from benchmarks.kernels.calibrate import stored_peaks  # noqa: E402
from benchmarks.kernels.compare import compare  # noqa: E402
from benchmarks.kernels.formats.fields import FormatError  # noqa: E402
from benchmarks.kernels.formats.loader import load_problem  # noqa: E402
from benchmarks.kernels.formats.workload import Problem, Workload  # noqa: E402
from benchmarks.kernels.hidden import neighbour  # noqa: E402
from benchmarks.kernels.inputs import make_inputs  # noqa: E402
from benchmarks.kernels.prepare import read_works  # noqa: E402
from benchmarks.kernels.reference import Reference, ReferenceFailed, Value  # noqa: E402

ALIGNMENT = 256  # bytes
MOST = 1 << 16  # of a request
Request = Mapping[str, Any]
Reply = dict[str, Any]


class Refused(Exception):
    """A request that cannot be met; `kind` is one of the failure kinds of a trial."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class Drawn:
    """The inputs of one batch: [sets] of values by name, the shared file that holds them, and a digest of it."""

    problem: Problem
    workload: Workload
    sets: Sequence[Mapping[str, Value]]
    memory: mmap.mmap
    written: bytes
    outputs: list[dict[str, torch.Tensor]] = field(default_factory=list)


class Judge:
    def __init__(self, data: Path) -> None:
        self.data = data
        self.problems: dict[str, tuple[Problem, Reference]] = {}
        self.hidden: dict[str, Workload] = {}
        self.drawn: Drawn | None = None
        self.peaks: Peaks | None = None

    def open(self, request: Request, descriptor: int | None) -> Reply:
        """The workloads of a problem: uuid, bound and floor in milliseconds, None where they cannot be found.

        The bound prices what the reference multiplies, which an algorithm might do without; the floor is made of the
        bytes alone that go in and out, which none can.
        """
        problem, _ = self._problem(request["problem"])
        works = read_works(self.data / "problems" / problem.name)
        return {"workloads": [{"uuid": each.uuid, **self._bounds(works, each)} for each in problem.workloads]}

    def hide(self, request: Request, descriptor: int | None) -> Reply:
        """Another size of the problem, as the uuid by which it can be drawn; none where its reference has no answer."""
        problem, reference = self._problem(request["problem"])
        workload = neighbour(problem, Random(request["seed"]))
        if workload is None:
            return {}
        try:
            inputs = make_inputs(problem.definition, workload, request["seed"], reference=reference)
            outputs = reference.run(inputs)
        except ReferenceFailed:
            return {}
        if not all(bool(each.float().isfinite().all()) for each in outputs.values()):
            return {}
        self.hidden[workload.uuid] = workload
        return {"uuid": workload.uuid}

    def draw(self, request: Request, descriptor: int | None) -> Reply:
        """Draw `sets` sets of inputs from `seed` into the memory file.

        Replies with the places of one set's values; those of the next begin `stride` bytes further, and have scalars
        of their own. `mapping`: CPU seconds to make the file part of a process's memory.
        """
        problem, reference = self._problem(request["problem"])
        listed = {each.uuid: each for each in problem.workloads}
        workload = (self.hidden | listed)[request["uuid"]]
        sets = [
            make_inputs(problem.definition, workload, seed, blobs=problem.folder, reference=reference)
            for seed in _seeds(request, workload)
        ]
        places, stride = _laid_out(sets[0])
        memory = _mapped(descriptor, stride * len(sets))
        for number, one in enumerate(sets):
            for place in places:
                if isinstance(value := one[place["name"]], torch.Tensor):
                    _at(memory, place, number * stride).copy_(value)
        self.drawn = Drawn(problem, workload, sets, memory, _digest(memory))
        scalars = [[value for value in one.values() if not isinstance(value, torch.Tensor)] for one in sets]
        began = time.process_time()
        _mapped(descriptor, stride * len(sets)).close()
        return {"places": places, "scalars": scalars, "stride": stride, "mapping": time.process_time() - began}

    def refer(self, request: Request, descriptor: int | None) -> Reply:
        """Run the reference on every set: CPU seconds of all, what its outputs look like, what copying them takes."""
        drawn, reference = self._drawn(), self.problems[self._drawn().problem.name][1]
        began = time.process_time()
        drawn.outputs = [reference.run(one) for one in drawn.sets]
        seconds = time.process_time() - began
        places, stride = _laid_out(drawn.outputs[0])
        return {"seconds": seconds, "places": places, "stride": stride, "copying": _copying(drawn.outputs)}

    def check(self, request: Request, descriptor: int | None) -> Reply:
        """Compare every set's outputs, laid into the memory file, with the reference's; `reason` is empty if right."""
        drawn = self._drawn()
        places, stride = _laid_out(drawn.outputs[0])
        memory, reasons = _mapped(descriptor, stride * len(drawn.outputs)), []
        for number, expected in enumerate(drawn.outputs):
            outputs = {place["name"]: _at(memory, place, number * stride) for place in places}
            found = compare(outputs, expected, drawn.workload.tolerance)
            if found.reason:
                reasons.append(f"call {number + 1} of {len(drawn.outputs)}: {found.reason}")
        return {"reason": "; ".join(reasons[:2])[:500], "mutated": _digest(drawn.memory) != drawn.written}

    def _problem(self, name: str) -> tuple[Problem, Reference]:
        if name not in self.problems:
            try:
                problem = load_problem(self.data / "problems" / name)
                self.problems[name] = problem, Reference(problem.definition, "cpu")
            except (FormatError, ReferenceFailed, OSError) as error:
                raise Refused("no_data", f"{name}: {error}") from error
        return self.problems[name]

    def _bounds(self, works: Mapping[str, Work], workload: Workload) -> dict[str, float | None]:
        self.peaks = self.peaks or stored_peaks(torch.device("cpu"), self.data / "peaks.json")
        try:
            work = works[workload.uuid]
            floor = 1e3 * work.memory_seconds(self.peaks)
            return {"bound_ms": bound_ms(work, self.peaks, overhead_seconds=0.0), "floor_ms": floor}
        except (KeyError, BoundError):
            return {"bound_ms": None, "floor_ms": None}

    def _drawn(self) -> Drawn:
        if self.drawn is None:
            raise Refused("refused", "nothing has been drawn yet")
        return self.drawn


def _seeds(request: Request, workload: Workload) -> list[int]:
    """Of each set: from the launch's seed, the workload, and which batch and set of it this is."""
    whole = f"{request['seed']}/{request['problem']}/{workload.uuid}/{request['batch']}"
    return [
        int.from_bytes(hashlib.sha256(f"{whole}/{number}".encode()).digest()[:7], "big")
        for number in range(request["sets"])
    ]


def _laid_out(values: Mapping[str, Value]) -> tuple[list[dict[str, Any]], int]:
    """Where each tensor of a set lies, dense, from the beginning of the set; and how far the next set is from it."""
    places: list[dict[str, Any]] = []
    size = 0
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            places.append({"name": name, "dtype": dtype, "shape": list(value.shape), "offset": size})
            size = _aligned(size + value.numel() * value.element_size())
        else:
            places.append({"name": name})
    return places, size


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _mapped(descriptor: int | None, size: int) -> mmap.mmap:
    if descriptor is None:
        raise Refused("refused", "a memory file must come with this request")
    if os.fstat(descriptor).st_size < max(size, 1):
        os.ftruncate(descriptor, max(size, 1))
        # A candidate that shrank it would end whoever reads it.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return mmap.mmap(descriptor, max(size, 1), mmap.MAP_SHARED | mmap.MAP_POPULATE)


def _at(memory: mmap.mmap, place: Mapping[str, Any], start: int) -> torch.Tensor:
    dtype, shape = getattr(torch, place["dtype"]), place["shape"]
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    raw = torch.frombuffer(memory, dtype=torch.uint8, count=count * dtype.itemsize, offset=start + place["offset"])
    return raw.view(dtype).view(shape)


def _copying(outputs: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """CPU seconds to copy all outputs into a memory file, as a candidate has to."""
    places, stride = _laid_out(outputs[0])
    with open(os.memfd_create("copy", os.MFD_ALLOW_SEALING), "rb+") as scratch:  # noqa: PTH123  a descriptor
        began = time.process_time()
        memory = _mapped(scratch.fileno(), stride * len(outputs))
        for number, one in enumerate(outputs):
            for place in places:
                _at(memory, place, number * stride).copy_(one[place["name"]])
        return time.process_time() - began


def _digest(memory: mmap.mmap) -> bytes:
    return hashlib.blake2b(memory, digest_size=16).digest()


def serve(judge: Judge, control: socket.socket) -> None:
    """Serve one worker until it closes the socket."""
    while True:
        content, descriptors, _, _ = socket.recv_fds(control, MOST, 1)
        if not content:
            return
        request = json.loads(content)
        descriptor = descriptors[0] if descriptors else None
        try:
            reply = getattr(judge, request["op"])(request, descriptor)
        except Refused as refused:
            reply = {"refusal": refused.kind, "message": str(refused)}
        except ReferenceFailed as failed:
            reply = {"refusal": "no_data", "message": f"the reference fails: {failed}"}
        finally:
            if descriptor is not None:
                socket.close(descriptor)
        control.send(json.dumps(reply).encode())


def main() -> None:
    """`judge.py DATA CONTROL_FD DEVICE`."""
    torch.set_num_threads(1)
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1)):  # as inside/run_solutions.py does, and for its reason
        libc.mallopt(option, value)
    control = socket.socket(fileno=int(sys.argv[2]))
    control.send(b"{}")  # ready
    serve(Judge(Path(sys.argv[1])), control)


if __name__ == "__main__":
    main()
