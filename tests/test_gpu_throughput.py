"""The throughput bench of the GPU lane: what its variants mean, bad names, and a whole run at tiny size on a CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.gpu import starts, throughput
from tests.gpu.variants import CHANGES, TINY, NoSuchVariant, variant

pytestmark = pytest.mark.torch


def test_a_variant_is_a_tree_with_constants_and_lines_changed():
    modern = variant("modern", {})
    changed = variant("modern+long+SHORT_WINDOW=256+tuned+flash+whole_loss", {})
    assert 'WINDOWS = "L"' not in modern.sources["model.py"] and "WINDOWS = 'L'" in changed.sources["model.py"]
    assert "SHORT_WINDOW = 256" in changed.sources["model.py"] and changed.environment and changed.setup
    assert "softcap(model.head(x))" in changed.sources["train.py"]
    tiny = variant("plain+rows64", TINY)
    assert tiny.constant("DEPTH") == 2 and tiny.constant("DEVICE_ROWS") == 64
    for name in set(CHANGES) - {"eager_muon"}:
        assert variant(f"modern+{name}", {}).sources
    assert "relu_squared.py" in variant("modern+fused_relu_squared", {}).sources
    assert variant("plain+eager_muon", {}).constant("COMPILED_MUON") == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("modem", "modem: there is no tree 'modem'; choose one of plain, modern, vanilla"),
        ("modern+longer", "modern+longer: there is no change 'longer'"),
        ("plain+long", "plain+long: plain has no constant WINDOWS"),
        ("plain+fused_relu_squared", "plain+fused_relu_squared: the line 'h = self.expand"),
        ("modern+DEPTH=x", "modern+DEPTH=x: x is no number or text of Python"),
    ],
)
def test_a_bad_variant_is_one_line_and_code_2(name, says, capsys):
    with pytest.raises(NoSuchVariant):
        variant(name, {})
    assert throughput.main(["--variants", name]) == 2
    said = capsys.readouterr().err
    assert said.startswith(says) and said.count("\n") == 1


def test_a_folder_without_tokens_is_one_line_and_code_2(tmp_path, capsys):
    assert throughput.main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} has no train.bin; prepare it first\n"


@pytest.mark.slow
def test_arms_take_turns_on_the_same_text_and_a_broken_one_says_why(tmp_path, capsys):
    (np.arange(50_000) % 97).astype(np.uint16).tofile(tmp_path / "train.bin")
    arguments = ["--tiny", "--device", "cpu", "--data", str(tmp_path), "--rounds", "2", "--steps", "3", "--profile"]
    assert throughput.main([*arguments, "--variants", "plain,modern+long,modern+HEADS=7"]) == 0
    found = json.loads(capsys.readouterr().out)["variants"]
    plain, modern, broken = found["plain"], found["modern+long"], found["modern+HEADS=7"]
    assert list(broken) == ["error"] and broken["error"]
    assert plain["steps"] == modern["steps"] == 12 and plain["times_plain_by_round"] == [1.0, 1.0]
    for arm in (plain, modern):
        assert arm["tokens_per_second"] > 0 and len(arm["tokens_per_second_by_round"]) == 2
        assert arm["step_ms"] > 0 and arm["losses"][0] == pytest.approx(np.log(512), abs=0.05)
        assert arm["losses"][-1] < arm["losses"][0] - 1
    assert plain["losses"][1] == pytest.approx(modern["losses"][1], abs=0.05)


def test_compiled_and_judged_are_one_function_and_the_check_of_it_runs_without_a_gpu(capsys):
    assert starts.main(["--tiny", "--device", "cpu", "--variants", "modern,vanilla"]) == 0
    for found in json.loads(capsys.readouterr().out).values():
        assert found["loss_compiled"] == pytest.approx(found["loss_as_judged"], abs=1e-5)
        assert found["host_waits"] == "" and all(value < 1e-5 for value in found["gradients_differ"].values())


def test_no_device_is_one_line_and_code_2(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a device here")
    assert starts.main([]) == 2
    assert capsys.readouterr().err == "PyTorch sees no CUDA device here; try --device cpu --tiny\n"
    assert throughput.main([]) == 2
