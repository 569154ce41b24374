"""How a FORWARD process of the token lane answers: in order, and on a device one question ahead."""

from __future__ import annotations

import importlib
import os
import select
import socket
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.nanochat.exchange import GROUP, HELLO, QUESTION, READY, Exchange
from benchmarks.nanochat.judge import FIRST, NEXT, WHOLE

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parent.parent
ROWS, LENGTH, VOCABULARY = 2, 3, 5


@pytest.fixture
def run_scores(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "runners")
    monkeypatch.syspath_prepend(ROOT / "benchmarks/nanochat/inside")
    return importlib.import_module("run_scores")


@pytest.mark.parametrize("device", [False, True])
def test_answers_come_in_order_and_a_device_is_kept_busy(run_scores: ModuleType, device: bool) -> None:
    """Of a device all but its time is played: work that is begun ends when somebody waits for it."""
    told: list[str] = []

    class Event:
        def __init__(self, number: int) -> None:
            self.number = number

        def synchronize(self) -> None:
            told.append(f"ended {self.number}")

    class Answer(run_scores.Answer):  # type: ignore[name-defined, misc]
        begun = 0

        def whole(self, turn: int, tokens: Any) -> int:
            self.begun += 1
            told.append(f"began {self.begun}")
            return int(super().whole(turn, tokens))

        def end(self) -> Event | None:
            return Event(self.begun) if device else super().end()

    table = torch.arange(float(VOCABULARY**2)).view(VOCABULARY, VOCABULARY)
    buffers = torch.zeros(2, ROWS * LENGTH * VOCABULARY * 4, dtype=torch.uint8)
    answer = Answer(lambda tokens: table[tokens], buffers, (ROWS, VOCABULARY), "cpu")
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    asked = np.arange(3 * ROWS * LENGTH).reshape(3, ROWS, LENGTH) % VOCABULARY

    def ask(number: int) -> None:
        question = run_scores.QUESTION.pack(run_scores.WHOLE, number % 2, LENGTH)
        ours.sendall(question + asked[number].astype("<u2").tobytes())

    def hear(number: int) -> None:
        assert ours.recv(1) == bytes([run_scores.TYPES[torch.float32]])
        scores = buffers[number % 2].view(torch.float32).view(ROWS, LENGTH, VOCABULARY)
        assert torch.equal(scores, table[torch.from_numpy(asked[number])])

    ask(0)
    ask(1)
    thread = threading.Thread(target=run_scores.serve, args=(theirs, answer, ROWS))
    thread.start()
    hear(0)
    ask(2)
    hear(1)
    hear(2)
    ours.sendall(run_scores.QUESTION.pack(run_scores.CAN_STEP, 0, 0))
    assert ours.recv(1) == b"\x00"
    ours.close()
    thread.join(20)
    theirs.close()
    assert not thread.is_alive()
    assert told[:3] == (["began 1", "began 2", "ended 1"] if device else ["began 1", "began 2", "began 3"])


@pytest.mark.parametrize("what", [WHOLE, FIRST, NEXT])
def test_a_token_that_is_fed_is_sent_once_the_one_before_it_is_answered(what: int) -> None:
    """The next token is what this answer is about: it must not lie in the socket, where a candidate could read it."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    exchange = Exchange(ours.detach(), 20.0, LENGTH, VOCABULARY, torch.device("cpu"))
    ahead: list[bool] = []

    def answer() -> None:
        _, descriptors, _, _ = socket.recv_fds(theirs, HELLO.size, 1)
        os.close(descriptors[0])
        theirs.sendall(READY)
        for _ in range(4):
            question = theirs.recv(QUESTION.size + 2 * GROUP, socket.MSG_WAITALL)
            assert question[0] == what
            ahead.append(bool(select.select([theirs], [], [], 0.2)[0]))
            theirs.sendall(bytes([1]))

    thread = threading.Thread(target=answer)
    thread.start()
    exchange.greet()
    assert len(list(exchange.answers(np.zeros((4, GROUP, 1), dtype=np.uint16), what))) == 4
    thread.join(20)
    exchange.close()
    theirs.close()
    assert ahead == ([True, True, True, False] if what == WHOLE else [False] * 4)
