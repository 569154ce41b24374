"""The doorbells: signed JSON on a real queue file, a real consumer that wakes, and nothing that a stranger can run."""

from __future__ import annotations

import json
import logging
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huey import Huey, SqliteHuey
from huey.serializer import SignedSerializer

from runners.queues import consumer_options, machine_bell, machine_queue, make


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


class Rings:
    """Counts its calls, from any thread."""

    def __init__(self) -> None:
        self.count, self.rung = 0, threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.rung.set()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A machine of its own for every test."""
    return request.node.name.removeprefix("test_")


@pytest.fixture
def rings(name: str) -> Iterator[Rings]:
    """A machine that listens: a real consumer on its queue."""
    heard = Rings()
    huey = machine_queue(name, heard)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    consumer = huey.create_consumer(**consumer_options(workers=1))
    consumer.start()
    yield heard
    consumer.stop(graceful=True)
    for number, handler in before.items():
        signal.signal(number, handler)


def put(name: str, data: bytes) -> Huey:
    """What a stranger with access to the queue can do."""
    huey = make(f"machine-{name}")
    huey.storage.enqueue(data)
    return huey


def wait_until_empty(huey: Huey) -> None:
    deadline = time.monotonic() + 10
    while len(huey) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not len(huey)


def test_a_ring_wakes_the_machine(name: str, rings: Rings) -> None:
    began = time.monotonic()
    machine_bell(name)()
    assert rings.rung.wait(10)
    assert rings.count == 1 and time.monotonic() - began < 5


def test_a_ring_waits_for_a_machine_that_is_away(name: str) -> None:
    machine_bell(name)()
    heard = Rings()
    huey = machine_queue(name, heard)
    assert isinstance(huey, SqliteHuey) and len(huey) == 1
    huey.execute(huey.dequeue())
    assert heard.count == 1 and not len(huey)


def test_a_message_is_readable_json_with_a_signature(name: str) -> None:
    machine_bell(name)()
    content, signature = make(f"machine-{name}").storage.dequeue().rsplit(b":", 1)
    message = json.loads(content)
    assert "wake" in message[1] and len(signature) == 40


def forged(kind: str, genuine: bytes, path: Path) -> bytes:
    content, signature = genuine.rsplit(b":", 1)
    if kind == "a pickle":
        return pickle.dumps(Bomb(path))
    if kind == "a pickle under a foreign key":
        return bytes(SignedSerializer(secret="another", salt="recursive-lab")._sign(pickle.dumps(Bomb(path))))
    if kind == "another content":
        return content.replace(b"wake", b"work") + b":" + signature
    if kind == "no signature":
        return content
    return content + b":" + b"0" * 40


@pytest.mark.parametrize(
    "kind",
    ["a pickle", "a pickle under a foreign key", "another content", "no signature", "a wrong signature"],
)
def test_a_forged_message_is_refused_and_runs_nothing(
    kind: str, tmp_path: Path, rings: Rings, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    sender = machine_bell(f"sender of {kind}")
    sender()
    genuine = make(f"machine-sender of {kind}").storage.dequeue()
    with caplog.at_level(logging.ERROR):
        wait_until_empty(put(name, forged(kind, genuine, tmp_path / "exploded")))
        machine_bell(name)()
        assert rings.rung.wait(10), "the machine still listens"
    assert rings.count == 1 and not (tmp_path / "exploded").exists()
    assert "Error reading from queue" in caplog.text


def test_even_a_signed_pickle_is_not_unpickled(tmp_path: Path, name: str) -> None:
    huey = make(f"machine-{name}")
    huey.storage.enqueue(huey.serializer._sign(pickle.dumps(Bomb(tmp_path / "exploded"))))
    with pytest.raises(ValueError):
        huey.dequeue()
    assert not (tmp_path / "exploded").exists()


def test_a_signed_message_can_only_name_tasks_that_exist(name: str) -> None:
    from huey.exceptions import HueyException

    huey = machine_queue(name, lambda: None)
    huey.storage.enqueue(huey.serializer._sign(json.dumps(["1", "os.system", None, 0, 0, None, ["true"], {}]).encode()))
    with pytest.raises(HueyException, match="not found"):
        huey.dequeue()


def test_machines_have_queues_of_their_own(name: str, rings: Rings) -> None:
    machine_bell(f"{name} other")()
    assert not rings.rung.wait(1.0)
