"""A slot of a machine: however many want to end it, it ends once. Real sandboxes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from runners.sandbox import Sandbox
from runners.slot import Slot
from tests.sandbox_play import INSIDE, SMALL, need_full_sandbox


@pytest.mark.parametrize("number", range(3))
def test_a_signal_a_heartbeat_and_the_trial_may_close_a_slot_together(number: int) -> None:
    need_full_sandbox()
    slot, start = Slot(6, None), Barrier(4)
    slot._box = Sandbox.start(6, inside=INSIDE, limits=SMALL)

    def close() -> None:
        start.wait()
        slot.close()

    with ThreadPoolExecutor(4) as threads:
        for closing in [threads.submit(close) for _ in range(4)]:
            closing.result()
