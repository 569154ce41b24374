"""Programs of the public one-file format: adapted, trained in the sandbox by our clock, scored from outside."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from benchmarks.contract import Adapted, Outcome, load
from benchmarks.data import data_folder, use
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat import evaluate
from benchmarks.nanochat.judge import windows
from research.loop.begin import Budget, begin_project
from research.repository import Repository
from runners.sandbox import Sandbox
from tests import one_file_play as play
from tests import token_play

TINY = load("nanochat").preset("gpu-tiny")
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens") / "data"
    token_play.write_data(folder)
    return folder


@pytest.fixture
def run(box: Sandbox, evaluator: evaluate.Evaluator, data: Path, tmp_path: Path) -> Run:
    def go(program: str, seed: int = 1, **more: object) -> Outcome:
        files = {name: text.decode() for name, text in adapted(program).files.items()}
        task = replace(token_play.task(files, data, TINY, **more), seed=seed)
        return evaluator.run(task, box, lambda name, steps, values: None, keep_weights=tmp_path / "weights")

    return go


def adapted(program: str, preset: str = "gpu-tiny", **others: str) -> Adapted:
    files = {"train.py": program.encode()} | {f"{name}.py": text.encode() for name, text in others.items()}
    found = load("nanochat").adapt(files, load("nanochat").preset(preset))
    assert found is not None
    return found


def direct(program: str, data: Path, weights: Path, enabled: bool = False) -> float:
    """Bits per byte of the program's own model with these weights, worked out here without the adapter."""
    import torch
    from safetensors.torch import load_file

    kept = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    body = [n for n in ast.parse(program).body if isinstance(n, kept) and "prepare" not in ast.unparse(n)]
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(ast.Module(body, []), "theirs", "exec"), space)
    model = (space.get("GPT") or space["Net"])(space["GPTConfig"]())
    model.init_weights()
    model.load_state_dict({name.removeprefix("network."): value for name, value in load_file(weights).items()})
    raw = np.fromfile(data / "val_screen.bin", dtype="<u2")
    inputs, targets = windows(raw, TINY.score_rows, TINY.sequence_length, "tokens")
    wanted = torch.from_numpy(targets.astype(np.int64))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        scores = model(torch.from_numpy(inputs.astype(np.int64))).double()
    nats = torch.nn.functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="none").numpy()
    sizes = np.load(data / "token_bytes.npy")[targets].astype(np.int64).ravel()
    return float(nats[sizes > 0].sum() / math.log(2) / sizes.sum())


@pytest.mark.torch
@pytest.mark.parametrize(
    ("program", "rounding"), [(play.flat(), 1e-5), pytest.param(play.muon(), 2e-3, marks=pytest.mark.slow)]
)
def test_a_program_is_trained_by_our_clock_and_scored_as_by_itself(
    program: str, rounding: float, run: Run, data: Path, tmp_path: Path
) -> None:
    outcome = run(program, confirming=True)
    assert outcome.failure is None, (outcome.failure, outcome.log)
    mine = direct(program, data, tmp_path / "weights", enabled="autocast" in program)
    assert outcome.score == pytest.approx(mine, abs=rounding)
    assert outcome.score < 1.5, "a uniform guess of 512 tokens has 2.0 bits a byte"
    assert not sorted(seen.kind for seen in outcome.observations if seen.kind != "long_warm_up")
    assert 0.8 * TINY.budget_seconds < outcome.seconds["train_cpu"] <= TINY.budget_seconds
    assert re.search(r"val_bpb: +nan", outcome.log), "what it prints of a score is no number"


@pytest.mark.torch
def test_uncounted_steps_are_undone_and_the_seed_is_ours(run: Run) -> None:
    """They are run on random tokens; where the counter begins, the weights are as they were made."""
    seen = "total_training_time += dt\n        if step == 11:\n            "
    seen += "print('at the clock', model.wte.weight.sum().item(), len(optimizer.state), int(x.max()))"
    program = play.flat().replace("total_training_time += dt", seen)
    logs = [run(program, seed=seed).log for seed in (1, 2)]
    first = [re.findall(r"first weights (\S+)", log) for log in logs]
    clock = [re.findall(r"at the clock (\S+) 0 \d+", log) for log in logs]
    assert first == clock and first[0] and first[0] != first[1]
    assert re.search(r"progress (0\.9\d|1\.0\d)", logs[0]), "its schedule goes to its end"


@pytest.mark.torch
def test_a_program_that_scores_itself_and_does_not_stop_is_scored_at_the_deadline(
    run: Run, data: Path, tmp_path: Path
) -> None:
    outcome = run(play.cheat())
    assert outcome.failure is None, (outcome.failure, outcome.log)
    assert "its weights are handed in as they are" in outcome.log
    assert outcome.score == pytest.approx(direct(play.cheat(), data, tmp_path / "weights"), abs=1e-5) and outcome.score
    found = {(seen.kind, seen.severity) for seen in adapted(play.cheat()).observations}
    assert {("own_score", "review"), ("own_constants", "review")} <= found


@pytest.mark.torch
@pytest.mark.slow
def test_a_program_without_a_counter_has_its_whole_run_on_the_clock(run: Run, data: Path, tmp_path: Path) -> None:
    outcome = run(play.by_the_wall())
    assert outcome.failure is None, (outcome.failure, outcome.log)
    assert outcome.score == pytest.approx(direct(play.by_the_wall(), data, tmp_path / "weights"), abs=1e-5)
    assert "nothing is warmed up" in str(adapted(play.by_the_wall()).observations)


@pytest.mark.torch
@pytest.mark.slow
def test_an_exploding_program_is_a_crash(run: Run) -> None:
    outcome = run(play.flat().replace("math.isnan(loss.item())", "step == 15"))
    assert outcome.failure is not None and (outcome.failure.kind, outcome.failure.message) == ("crash", "FAIL")


@pytest.mark.torch
def test_an_optimizer_that_cannot_be_undone_is_said(run: Run) -> None:
    own = play.flat().replace("torch.optim.AdamW(model.parameters(), lr=0.02)", "Plain(model)")
    plain = """class Plain:
    param_groups = []

    def __init__(self, model):
        self.model = model

    def step(self):
        pass


t_start"""
    outcome = run(own.replace("t_start", plain, 1))
    assert outcome.failure is not None and "derive the optimizer from that class" in outcome.failure.message


@pytest.mark.torch
def test_attention_from_the_network_is_computed_by_torch(run: Run) -> None:
    fa3 = "from kernels import get_kernel\n\nfa3 = get_kernel('someone/flash-attention-3').flash_attn_interface\n\n"
    program = play.flat().replace("from prepare", f"{fa3}from prepare", 1)
    program = program.replace(
        "y = F.scaled_dot_product_attention(q, k, v, is_causal=True)",
        "y = fa3.flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), causal=True, window_size=(8, 0))"
        ".transpose(1, 2)",
    )
    outcome = run(program)
    assert outcome.failure is None, (outcome.failure, outcome.log)
    assert outcome.score and not [seen for seen in outcome.observations if seen.kind != "long_warm_up"]
    assert "replaced_kernel" in {seen.kind for seen in adapted(program).observations}


@pytest.mark.torch
def test_windows_and_shared_heads_equal_the_plain_way() -> None:
    import torch

    path = Path(evaluate.__file__).parent / "one_file" / "tree" / "kernels.py"
    spec = importlib.util.spec_from_file_location("attention_of_one_file", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 13, 4, 8), torch.randn(2, 13, 2, 8), torch.randn(2, 13, 2, 8)
    for before in (-1, 0, 5, 12, 40):
        y = module.get_kernel("flash-attn3").flash_attn_func(q, k, v, causal=True, window_size=(before, 0))
        for t in range(13):
            first = 0 if before < 0 else max(0, t - before)
            for head in range(4):
                weights = torch.softmax(
                    k[:, first : t + 1, head // 2] @ q[:, t, head, :, None] / 8**0.5, 1
                )  # [B, n, 1]
                wanted = (weights * v[:, first : t + 1, head // 2]).sum(1)
                torch.testing.assert_close(y[:, t, head], wanted, atol=1e-5, rtol=1e-4)


def test_what_was_changed_is_found_with_its_lines() -> None:
    found = adapted(play.flat(), prepare="TIME_BUDGET = 300\n")
    lines = {seen.kind: seen.evidence for seen in found.observations}
    assert set(lines) == {"own_evaluator", "own_score", "own_clock", "uncounted_steps", "own_seed"}
    assert lines["own_seed"][0].endswith("torch.manual_seed(42)")
    assert "leaves 11 steps uncounted" in str(found.observations)
    script = found.files["script.py"].decode()
    assert "total_training_time = prepare.counted_seconds()" in script and "manual_seed(prepare.SEED)" in script
    assert "@prepare.scored\nclass GPT(nn.Module):" in script and sorted(found.files) == [
        "model.py", "prepare.py", "script.py", "train.py"
    ]  # fmt: skip
    assert b"MAX_SEQ_LEN = 64\n" in found.files["prepare.py"]
    changed = difflib.unified_diff(play.flat().splitlines(), script.splitlines(), n=0, lineterm="")
    assert len([line for line in changed if line[:1] == "+"]) == 5, "a heading and four lines: the rest is as it was"


def test_other_formats_are_left_alone() -> None:
    nanochat, preset = load("nanochat"), TINY
    assert nanochat.adapt(nanochat.start_files("modern", "gpu-tiny"), preset) is None
    assert nanochat.adapt({"train.py": b"import torch\n"}, preset) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("return logits\n", "return logits, None\n", "GPT.forward returns several values in line"),
        ("targets=None", "mask=None", "has no class with forward"),
        ("class Block(", "class GPT2(GPT):\n    def forward(self, x, y=None): ...\n\n\nclass Block(", "2 classes"),
        ("Tokenizer, make", "Tokenizer, make_mixed, make", "takes make_mixed from prepare, which offers EVAL_TOKENS"),
        ('"train")', '"val")', "asks for the validation text in line"),
        ("import torch\n", "import mlx.core\nimport torch\n", "is written for MLX"),
        (' if torch.cuda.is_available() else "cpu"', "", "needs a GPU in line .*, and preset gpu-tiny has none"),
    ],
)
def test_what_cannot_be_adapted_is_one_line(old: str, new: str, words: str) -> None:
    assert old in play.flat()
    with pytest.raises(DoesNotApply, match=words) as refused:
        adapted(play.flat().replace(old, new))
    assert "\n" not in str(refused.value)
    with pytest.raises(DoesNotApply, match="script.py: the adapter brings a file of that name"):
        adapted(play.flat(), script="")


@pytest.mark.django_db
def test_a_program_is_brought_as_a_rival(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    prepared = data_folder("nanochat") / "made"
    shutil.copytree(data, prepared)
    manifest = json.loads((prepared / "manifest.json").read_text()) | {"vocabulary": token_play.VOCABULARY}
    (prepared / "manifest.json").write_text(json.dumps(manifest))
    use(prepared, TINY.data, manifest["data_id"])
    project = begin_project("tiny", "nanochat", "gpu-tiny", "modern", [], Budget(), auto_approve=False)
    folder = tmp_path / "autoresearch"
    folder.mkdir()
    (folder / "train.py").write_text(play.muon())
    (folder / "prepare.py").write_text("import requests\n")
    call_command("rival", "tiny", files=folder, pairs=2, json=True)
    (brought,) = json.loads(capsys.readouterr().out)["rivals"]
    assert brought["name"] == "autoresearch" and "leaves 5 steps uncounted" in str(brought["findings"])
    assert "network" not in str(brought["findings"]), "what is not taken is not looked at"
    files = Repository(project.repository_path).files(brought["commit"])
    assert sorted(files) == ["benchmark.toml", "model.py", "prepare.py", "script.py", "train.py"]
    (folder / "train.py").write_text(play.flat().replace("return logits\n", "return logits, None\n"))
    with pytest.raises(CommandError, match="GPT.forward returns several values"):
        call_command("rival", "tiny", files=folder)
