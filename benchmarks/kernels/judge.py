"""The judge of the kernel lane: draws inputs, holds the references, says whether outputs are right. Protected.

A process of its own, outside every sandbox. Inputs are drawn from a seed that no candidate sees, after it was imported,
anew for every call; reference outputs exist in this process alone. Inputs travel to the candidate in memory that both
map, its outputs come back in another such piece, which is poisoned with NaN before. The reference is run on the same
inputs and timed by this process's own clock.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # started by its path, outside any package

from benchmarks.judge_device import Shared, about  # noqa: E402
from benchmarks.kernels.anchors import AnchorError  # noqa: E402
from benchmarks.kernels.batch import Batch, Digest, Layout, copying  # noqa: E402
from benchmarks.kernels.compare import compare  # noqa: E402
from benchmarks.kernels.formats.fields import FormatError  # noqa: E402
from benchmarks.kernels.formats.loader import load_problem  # noqa: E402
from benchmarks.kernels.formats.workload import Problem, Workload  # noqa: E402
from benchmarks.kernels.hidden import neighbour  # noqa: E402
from benchmarks.kernels.inputs import make_inputs  # noqa: E402
from benchmarks.kernels.inside.calls import Pads, Queued, after, make_room, queued, seal, wake  # noqa: E402
from benchmarks.kernels.reference import Reference, ReferenceFailed  # noqa: E402
from benchmarks.kernels.roofline import Roofline, l2_bytes  # noqa: E402
from runners import cuda  # noqa: E402

MOST = 1 << 16  # of a request
POISON = 0xFF  # NaN in every floating dtype
COMPARED = 4  # calls of a queued batch whose outputs are compared, drawn by lot, besides the audited one
TRIES = 5
PAD_BYTES = 256 << 10  # on a CPU, for tests; on a GPU four times the L2 cache
Request = Mapping[str, Any]
Reply = dict[str, Any]


class Refused(Exception):
    """A request that cannot be met; `kind` is one of the failure kinds of a trial."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Judge:
    """Each method answers a request; `handed` is the descriptor that goes with the answer, which stays its own."""

    def __init__(self, data: Path, device: torch.device) -> None:
        self.data, self.device = data, device
        self.gpu = cuda.Device() if device.type == "cuda" else None
        self.synchronize: Callable[[], None] = self.gpu.synchronize if self.gpu else lambda: None
        self.problems: dict[str, tuple[Problem, Reference]] = {}
        self.hidden: dict[str, Workload] = {}
        self.outputs: dict[tuple[str, str], Layout] = {}  # of each workload
        self.batch: Batch | None = None
        self.laid: Shared | None = None  # where inputs lie for the candidate
        self.roofline = Roofline(data, device)
        self.digest = Digest(device)
        self.own_pads: Pads | None = None
        self.their_memory: Shared | None = None
        self.their_pads: Pads | None = None  # which lie in it
        self.their_words = (0, 0)  # what the words of either half of them are
        self.handed: int | None = None

    def open(self, request: Request) -> Reply:
        """The workloads of a problem: uuid; bound, floor and scaled anchor in milliseconds, None where there is none.

        The bound prices what the reference multiplies, which an algorithm might do without; the floor is made of the
        bytes alone that go in and out, which none can, less those that may still lie in a cache.
        """
        problem, _ = self._problem(request["problem"])
        return {"workloads": self.roofline.of(problem)}

    def hide(self, request: Request) -> Reply:
        """Another size of the problem, as the uuid by which it can be drawn; none where its reference has no answer."""
        problem, reference = self._problem(request["problem"])
        workload = neighbour(problem, random.Random(request["seed"]))
        if workload is None:
            return {}
        try:
            outputs = reference.run(self._drawn(problem, workload, request["seed"], reference))
        except ReferenceFailed:
            return {}
        if not all(bool(each.float().isfinite().all()) for each in outputs.values()):
            return {}
        self.hidden[workload.uuid] = workload
        return {"uuid": workload.uuid}

    def pads(self, request: Request) -> Reply:
        """New memory for the passes before a candidate's calls, all zero: `size` bytes.

        `seconds`: of so many passes over it as the request's `passes` say, each.
        `memory`: bytes of the device, 0 on a CPU.
        """
        self._let_go()
        self._put_away()
        if self.their_memory is not None:
            self.their_pads = None
            self.their_memory.close()
        size = PAD_BYTES if self.gpu is None else 4 * l2_bytes(self.device)
        self.own_pads = self.own_pads or Pads(self._shared(size).bytes)  # of the same kind of memory
        self.their_memory = self._shared(size)
        self.their_pads = Pads(self.their_memory.bytes)
        seconds = [median(self._passing(count) for _ in range(TRIES)) for count in request["passes"]]
        self.their_memory.bytes.zero_()
        self.their_words = (0, 0)
        memory = 0 if self.gpu is None else torch.cuda.get_device_properties(self.device).total_memory
        return self._handing(self.their_memory) | {"seconds": seconds, "memory": memory}

    def _passing(self, count: int) -> float:
        """Seconds of so many passes over the candidate's pads, by a stopwatch."""
        assert self.their_pads is not None
        keys = self.their_pads.keys([0] * count)
        wake(self.device)
        self.synchronize()
        began = time.perf_counter()
        self.their_pads.run(keys.each)
        self.synchronize()
        return time.perf_counter() - began

    def draw(self, request: Request) -> Reply:
        """Draw `sets` sets of inputs from `seed`; the memory of `size` bytes that they belong into goes with the reply.

        Replies with the places of one set's values; those of the next begin `stride` bytes further, and have scalars
        of their own. All are sealed by `key`, or what the reply says instead. `mapping`: CPU seconds to make such a
        file part of a process's memory. `stays`: in the same memory as those before, where they fit.
        """
        self._let_go()
        problem, reference = self._problem(request["problem"])
        workload = self._workload(problem, request["uuid"])
        seeds = _seeds(request, workload)
        for seed in seeds:
            one = self._drawn(problem, workload, seed, reference)
            if self.batch is None:
                layout = Layout(one)
                inputs = self._lay(layout.stride * len(seeds), bool(request.get("stays")))
                self.batch = Batch(problem, workload, layout, len(seeds), inputs)
            self.batch.add(one)
        batch = self._batch()
        batch.written = self.digest.of(batch.own)
        batch.show(request["key"])
        began = time.process_time()
        if self.gpu is None:
            Shared(batch.inputs.size, self.device).close()
        mapping, layout = time.process_time() - began, batch.layout
        reply = {"places": layout.places, "scalars": batch.scalars, "stride": layout.stride, "mapping": mapping}
        return self._handing(batch.inputs) | reply | {"key": batch.key}

    def refer(self, request: Request) -> Reply:
        """Run the reference on every set: what that takes, and what its outputs look like.

        CPU `seconds` of all, and on a CPU those for `copying` the outputs. With `keys` the calls are queued behind
        pads: `span` are the seconds of all by the device's clock, `launched` the host's to start them.
        """
        batch, reference = self._batch(), self.problems[self._batch().problem.name][1]
        self._watch(batch)
        if "keys" in request:
            done = self._queued(reference.run, [(one,) for one in batch.sets], request)
            batch.outputs = done.returned  # type: ignore[assignment]
            found: Reply = {"span": done.span, "launched": done.launched}
        else:
            began = time.process_time()
            batch.outputs = [reference.run(one) for one in batch.sets]
            found = {"seconds": time.process_time() - began}
        layout = self.outputs[batch.problem.name, batch.workload.uuid] = Layout(batch.outputs[0])
        found |= {"places": layout.places, "stride": layout.stride}
        if self.gpu is None and "keys" not in request:
            found["copying"] = copying(batch.outputs, layout)
        return found

    def passed(self, request: Request) -> Reply:
        """Whether the candidate's pads were `skipped`: they do not hold what the passes with these keys leave there."""
        return {"skipped": not self._passed_over(request)}

    def room(self, request: Request) -> Reply:
        """Memory of `size` bytes for the outputs of every set, all NaN; after a reference ran.

        And for those of one set more, as they were when its call was over, unless there is only one.
        """
        batch = self._batch()
        layout, count = self.outputs[batch.problem.name, batch.workload.uuid], len(batch.sets)
        if batch.room is None:
            batch.room = self._shared(layout.stride * (count + 1 if count > 1 else 1))
        batch.room.bytes.fill_(POISON)
        return self._handing(batch.room) | {"places": layout.places, "stride": layout.stride}

    def check(self, request: Request) -> Reply:
        """Compare outputs that lie in the room with the reference's; `reason` is empty if they are right.

        Those of every set; with `keys` of a few drawn by lot, and of set `audit` as they were when its call was over,
        and whether the pads hold what that many passes leave there. Of these the reference is run now.
        """
        batch = self._batch()
        assert batch.room is not None
        count, layout = len(batch.sets), self.outputs[batch.problem.name, batch.workload.uuid]
        looked_at = {number: number for number in range(count)}  # place in the room -> set
        reply: Reply = {"skipped": False}
        if "keys" in request:
            drawn = random.SystemRandom().sample(range(count), min(COMPARED, count))
            looked_at = {number: number for number in drawn} | ({count: request["audit"]} if count > 1 else {})
            reply["skipped"] = not self._passed_over(request)
            self._watch(batch)
        reference, reasons = self.problems[batch.problem.name][1], []
        for place, number in looked_at.items():
            wanted = reference.run(batch.sets[number]) if "keys" in request else batch.outputs[number]
            found = compare(layout.get(batch.room.bytes, place), wanted, batch.workload.tolerance)
            if found.reason:
                when = "at once after " if place == count else ""
                reasons.append(f"{when}call {number + 1} of {count}: {found.reason}")
        batch.touched = batch.touched or batch.written != self.digest.of(batch.theirs)
        return reply | {"reason": "; ".join(reasons[:2])[:500], "mutated": batch.touched}

    def _watch(self, batch: Batch) -> None:
        """Of inputs that are kept once: whether somebody wrote to what the reference is about to read."""
        if batch.shares and batch.written != self.digest.of(batch.own):
            batch.touched = True

    def memory(self, request: Request) -> Reply:
        """Bytes of the device's memory that others hold, and all of them; between two trials."""
        self._let_go()
        self._put_away()
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.device)
        return {"used": total - free - torch.cuda.memory_reserved(self.device), "total": total}

    def _queued(self, run: Callable[..., Any], sets: list[tuple[Any, ...]], request: Request) -> Queued:
        assert self.own_pads is not None
        batch, pads, keys = self._batch(), self.own_pads, self.own_pads.keys(request["keys"])
        layout = self.outputs.get((batch.problem.name, batch.workload.uuid))
        spare = torch.empty(layout.stride if layout else 0, dtype=torch.uint8, device=self.device)

        def look(outputs: Any) -> None:
            if layout:
                layout.put(outputs, spare, 0)

        def unseal() -> None:
            seal(batch.own, batch.key)

        unseal()  # which seals them: what a candidate has to do is done here, too
        wake(self.device)
        self.synchronize()
        return queued(run, sets, pads, keys, request["sweeps"], unseal, self.synchronize, request["audit"], look)

    def _passed_over(self, request: Request) -> bool:
        """Whether every word of the candidate's pads has gone through all passes. From here on it is what it is."""
        assert self.their_pads is not None
        words, wanted = self.their_pads.words, after(self.their_words, request["keys"])
        if all(bool((half == word).all()) for half, word in zip(words.chunk(2), wanted, strict=True)):
            self.their_words = wanted
            return True
        words.zero_()
        self.their_words = (0, 0)
        return False

    def _drawn(self, problem: Problem, workload: Workload, seed: int, reference: Reference) -> Mapping[str, Any]:
        return make_inputs(
            problem.definition, workload, seed, self.device, blobs=problem.folder, reference=reference
        )  # fmt: skip

    def _problem(self, name: str) -> tuple[Problem, Reference]:
        if name not in self.problems:
            try:
                problem = load_problem(self.data / "problems" / name)
                self.problems[name] = problem, Reference(problem.definition, self.device)
            except (FormatError, ReferenceFailed, OSError) as error:
                raise Refused("no_data", f"{name}: {error}") from error
        return self.problems[name]

    def _workload(self, problem: Problem, uuid: str) -> Workload:
        return (self.hidden | {each.uuid: each for each in problem.workloads})[uuid]

    def _batch(self) -> Batch:
        if self.batch is None:
            raise Refused("refused", "nothing has been drawn yet")
        return self.batch

    def _let_go(self) -> None:
        if self.batch is not None:
            self.batch.close()
            self.batch = None

    def _lay(self, size: int, stays: bool) -> Shared:
        """Memory for inputs; where it `stays`, what is measured over it once holds for all batches of a launch."""
        if self.laid is None or not stays or self.laid.size < size:
            self._put_away()
            self.laid = self._shared(size)
        return self.laid

    def _put_away(self) -> None:
        if self.laid is not None:
            self.laid.close()
            self.laid = None

    def _shared(self, size: int) -> Shared:
        try:
            return Shared(size, self.device)
        except (torch.OutOfMemoryError, cuda.CudaError):
            torch.cuda.empty_cache()  # what torch keeps is no use to others
        try:
            return Shared(size, self.device)
        except (torch.OutOfMemoryError, cuda.CudaError) as problem:
            raise Refused("out_of_memory", f"no room on the device for {size / 2**30:.1f} GiB: {problem}") from None

    def _handing(self, memory: Shared) -> Reply:
        self.synchronize()  # what was written into it is there
        self.handed = memory.descriptor
        return {"size": memory.size}


def _seeds(request: Request, workload: Workload) -> list[int]:
    """Of each set: from the launch's seed, the workload, and which batch and set of it this is."""
    whole = f"{request['seed']}/{request['problem']}/{workload.uuid}/{request['batch']}"
    return [
        int.from_bytes(hashlib.sha256(f"{whole}/{number}".encode()).digest()[:7], "big")
        for number in range(request["sets"])
    ]


def serve(judge: Judge, control: socket.socket) -> None:
    """Serve one worker until it closes the socket."""
    while content := control.recv(MOST):
        request = json.loads(content)
        judge.handed = None
        try:
            reply = getattr(judge, request["op"])(request)
            make_room(judge.device)
        except Refused as refused:
            reply = {"refusal": refused.kind, "message": str(refused)}
        except AnchorError as damaged:
            reply = {"refusal": "no_data", "message": str(damaged)}
        except ReferenceFailed as failed:
            reply = {"refusal": "no_data", "message": f"the reference fails: {failed}"}
        except torch.OutOfMemoryError as problem:
            reply = {"refusal": "out_of_memory", "message": f"the judge found no room on the device: {problem}"[:500]}
        handed: list[int] = [] if judge.handed is None or "refusal" in reply else [judge.handed]
        socket.send_fds(control, [json.dumps(reply).encode()], handed)


def main() -> None:
    """`judge.py DATA CONTROL_FD DEVICE`."""
    data, descriptor, name = sys.argv[1:4]
    torch.set_num_threads(1)
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1)):  # as inside/run_solutions.py does, and for its reason
        libc.mallopt(option, value)
    control, device = socket.socket(fileno=int(descriptor)), torch.device(name)
    try:
        judge, ready = Judge(Path(data), device), about(device)
    except (RuntimeError, OSError) as problem:  # no device, no driver
        control.send(json.dumps({"refusal": "no_device", "message": str(problem).strip().splitlines()[-1]}).encode())
        os._exit(1)  # a driver that fails may hang at exit
    control.send(json.dumps(ready).encode())
    serve(judge, control)


if __name__ == "__main__":
    main()
