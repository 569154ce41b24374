"""The worker's end of a judge: a process of its own that holds what no candidate may see, and says what is right."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.contract import TrialFailed
from runners import cuda
from runners.sandbox import SandboxBroken

READY_SECONDS = 180.0  # importing torch, a context on the device, one compiled kernel
REPLY_SECONDS = 30.0  # beyond what a FORWARD process may take
_MOST = 1 << 16  # bytes of a reply
_HANDED = 2  # descriptors that come with one


class JudgeProcess:
    """Started once a slot; restarted where it died. `gpu`: the number of its device, None without one."""

    def __init__(self, data: Path, program: tuple[str, ...], gpu: int | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device = "cpu" if gpu is None else "cuda"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", *program, str(data), str(theirs.fileno()), device],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=_environment(gpu),
            )  # fmt: skip
        self.socket = ours
        self.data, self.program, self.gpu = data, program, gpu
        self._info: dict[str, str] | None = None
        self._hearing = threading.RLock()

    def ready(self) -> dict[str, str]:
        """Wait until it can judge; what it says of its device. Raises SandboxBroken where it cannot."""
        if self._info is None:
            reply = self._hear(READY_SECONDS)
            if reply is None or "refusal" in reply:
                self.close()
                words = reply["message"] if reply else "it did not start; its error stands in the log"
                raise SandboxBroken(f"the judge cannot work on this machine: {words}")
            self._info = reply
        return self._info

    def ask(self, request: dict[str, Any], descriptors: Sequence[int], late: str) -> dict[str, Any]:
        """Send a request, with descriptors of what it is about; the caller keeps and closes its own copies of them.

        Descriptors that the judge hands over with its reply lie in its `descriptors`; the caller closes them. Raises
        TrialFailed: what the judge refuses with, that it died, or `late` where it takes longer than
        `request["seconds"]`.
        """
        self.ready()
        socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)
        reply = self._hear(request["seconds"] + REPLY_SECONDS)
        if reply is None:
            died = not self.lives
            self.close()  # the next trial starts another one
            if died:
                raise TrialFailed("crash", "the judge died")
            raise TrialFailed("timeout", late)
        if kind := reply.get("refusal"):
            raise TrialFailed(kind, reply["message"])
        return reply

    def memory(self) -> tuple[int, int]:
        """Bytes of the device's memory that are in use by anybody, and all of them."""
        self.ready()
        self.socket.send(json.dumps({"op": "memory"}).encode())
        reply = self._hear(REPLY_SECONDS)
        if reply is None:
            self.close()
            raise SandboxBroken("the judge died")
        return reply["used"], reply["total"]

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """Its next message; None where it died or does not answer."""
        try:
            with self._hearing:
                self.socket.settimeout(seconds)
                message, descriptors, _, _ = socket.recv_fds(self.socket, _MOST, _HANDED)
        except (TimeoutError, ConnectionResetError):
            return None
        if not message:
            return None
        reply: dict[str, Any] = json.loads(message)
        return reply | {"descriptors": descriptors} if descriptors else reply

    def pin(self, cpu: int) -> None:
        os.sched_setaffinity(self.process.pid, {cpu})

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """From any thread: who waits for an answer hears at once that there is none.

        Its descriptor is closed when nobody waits on it any more: its number is given to the next file that is opened,
        and the wait would go on there.
        """
        self.process.kill()
        with suppress(OSError):  # it has been closed already
            self.socket.shutdown(socket.SHUT_RDWR)
        self.process.wait()
        with self._hearing:
            self.socket.close()


def _environment(gpu: int | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
    kept |= {"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if gpu is not None:
        kept |= cuda.environment(gpu) | {"HOME": os.environ.get("HOME", "/tmp"), "USER": "judge"}
        if libraries := os.environ.get("LD_LIBRARY_PATH"):  # where containers keep the driver
            kept["LD_LIBRARY_PATH"] = libraries
    return kept
