"""The kernel lane on a GPU: exploits are caught, honest kernels are not accused, its clock agrees with another one."""

from __future__ import annotations

import pytest

from benchmarks.kernels.redteam.on_gpu import EXPLOITS
from runners import cuda

pytestmark = pytest.mark.torch
on_device = [pytest.mark.gpu, pytest.mark.skipif(not cuda.nodes(), reason="needs an NVIDIA GPU")]


def test_the_planted_solutions_are_python_and_named_once() -> None:
    from tests.gpu.kernel_lane import planted_on

    planted = planted_on("cuda")
    for one in planted:
        compile(one.solution, one.name, "exec")
    assert len({one.name for one in planted}) == len(planted) >= len(EXPLOITS) + 28


@pytest.mark.slow
def test_a_launch_and_a_loop_of_its_own_are_played_on_a_cpu() -> None:
    from tests.gpu.kernel_lane import play_hand

    rows = play_hand("cpu", ["rope"])["rows"]
    assert {row["problem"] for row in rows} == {"rope"}
    assert all(row["launch_us"] > 0 < row["hand_us"] for row in rows)


class TestOnDevice:
    pytestmark = on_device

    def test_every_exploit_is_caught(self) -> None:
        from tests.gpu.kernel_lane import play_exploits

        assert play_exploits("cuda")["missed"] == []

    def test_no_honest_kernel_is_accused(self) -> None:
        from tests.gpu.kernel_lane import play_honest

        played = play_honest("cuda", 58)
        assert played["played"] >= 40 and played["accused"] == []

    def test_a_launch_tells_what_a_loop_of_events_tells(self) -> None:
        from tests.gpu.kernel_lane import PROBLEMS, play_hand

        found = play_hand("cuda", PROBLEMS)
        assert found["within_5_percent"] >= 0.8 * found["cells"]
