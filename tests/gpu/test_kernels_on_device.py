"""On a machine with a GPU: the kernels agree with float64, in the types and through the compiler of training."""

from __future__ import annotations

import pytest

from runners import cuda

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.nodes(), reason="needs an NVIDIA GPU")]


@pytest.mark.parametrize("part", ["loss", "mlp", "values", "rows"])
def test_kernels_err_no_more_than_the_naive_way(part: str) -> None:
    from tests.gpu.kernel_parts import PARTS
    from tests.gpu.kernel_timing import Size
    from tests.gpu.kernels import sound

    found = PARTS[part](Size(batch=4, table_rows=2**12, layers=2, rounds=1))

    assert sound(found), found
