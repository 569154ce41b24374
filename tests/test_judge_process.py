"""The worker's end of a judge may be closed by any thread, while another waits for an answer."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.judging import JudgeProcess
from runners.sandbox import SandboxBroken


class Watched(socket.socket):
    """Notes whether it was closed while somebody waited on it: the number may then be another file's."""

    waiting = False
    closed_under_somebody = False

    def recvmsg(self, *of: Any) -> Any:
        self.waiting = True
        try:
            return super().recvmsg(*of)
        finally:
            self.waiting = False

    def close(self) -> None:
        self.closed_under_somebody |= self.waiting
        super().close()


@pytest.fixture
def silent(tmp_path: Path) -> JudgeProcess:
    """A judge that never says anything."""
    program = tmp_path / "silent.py"
    program.write_text("import time\ntime.sleep(600)\n")
    judge = JudgeProcess(tmp_path, (str(program),))
    judge.socket = Watched(fileno=judge.socket.detach())
    return judge


def test_who_waits_for_a_judge_that_is_closed_hears_so_at_once(silent: JudgeProcess) -> None:
    heard: list[str] = []

    def wait() -> None:
        try:
            silent.ready()
        except SandboxBroken as broken:
            heard.append(str(broken))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not silent.socket.waiting:  # type: ignore[attr-defined]
        time.sleep(0.001)
    closing = [threading.Thread(target=silent.close) for _ in range(3)]
    for thread in closing:
        thread.start()
    for thread in (*closing, waiting):
        thread.join(10)
        assert not thread.is_alive()
    assert len(heard) == 1 and "the judge cannot work on this machine" in heard[0]
    assert not silent.socket.closed_under_somebody  # type: ignore[attr-defined]
    assert silent.socket.fileno() == -1 and not silent.lives
    silent.close()
