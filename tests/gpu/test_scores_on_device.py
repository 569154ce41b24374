"""On a machine with a GPU: a kernel runs in the sandbox, and a candidate's scores reach the judge without a copy."""

from __future__ import annotations

import pytest

from runners import cuda

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.nodes(), reason="needs an NVIDIA GPU")]


def test_scores_that_stay_on_the_device_give_the_loss_of_one_process() -> None:
    from tests.gpu.scores import measure

    found = measure()

    assert found["isolation"] == 3, found["failed"]
    assert found["shared_on_device"]["loss"] == found["one_process"]["loss"]  # type: ignore[index]
    assert found["shared_on_device"]["ms"] < found["through_host"]["ms"]  # type: ignore[index]
