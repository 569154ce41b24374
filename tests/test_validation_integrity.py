"""Static checks: paths that a change may not touch, and what a reader should see in its code."""

import pytest

from research.validation.integrity import check_paths, lint
from research.validation.records import Severity

EDITABLE = ["train/**/*.py", "README.md", "kernels/*.py"]
PROTECTED = ["train/judge.py", "train/data", "**/benchmark.toml", "train/loader_*.py"]


def kinds(findings):
    return {finding.kind: finding.severity for finding in findings}


@pytest.mark.parametrize("path", ["train/model.py", "train/deep/er/block.py", "README.md", "kernels/rope.py"])
def test_a_change_inside_the_editable_tree_has_no_finding(path):
    assert check_paths([path], EDITABLE, PROTECTED) == []


@pytest.mark.parametrize(
    "path, kind",
    [
        ("train/judge.py", "protected_path"),
        ("train/JUDGE.py", "protected_path"),
        ("train/ｊudge.py", "protected_path"),
        ("train/data/extra.py", "protected_path"),
        ("train/data", "protected_path"),
        ("train/loader_fast.py", "protected_path"),
        ("train/benchmark.toml", "protected_path"),
        ("benchmark.toml", "protected_path"),
        ("train/weights.bin", "outside_editable"),
        ("kernels/deep/rope.py", "outside_editable"),
        ("setup.py", "outside_editable"),
        ("/etc/passwd", "path_traversal"),
        ("train/../judge.py", "path_traversal"),
        ("train/./model.py", "path_traversal"),
        ("train//model.py", "path_traversal"),
        ("train\\model.py", "path_traversal"),
        ("C:/train/model.py", "path_traversal"),
        ("~/model.py", "path_traversal"),
        ("", "path_traversal"),
        ("train/mo\u200bdel.py", "path_traversal"),
        ("train/mo\ndel.py", "path_traversal"),
        ("train/model.py -> /etc/passwd", "path_redirect"),
        ("train/.git/hooks.py", "path_redirect"),
        (".gitmodules", "path_redirect"),
        ("train/.GIT/config.py", "path_redirect"),
    ],
)
def test_a_path_out_of_bounds_is_structural_and_names_itself(path, kind):
    (finding,) = check_paths([path], EDITABLE + ["**"] * (kind == "path_redirect"), PROTECTED)
    assert (finding.kind, finding.severity, finding.evidence) == (kind, Severity.STRUCTURAL, (path,))


def test_each_bad_path_of_a_change_is_reported():
    found = check_paths(["train/model.py", "train/judge.py", "x.py"], EDITABLE, PROTECTED)
    assert [finding.evidence for finding in found] == [("train/judge.py",), ("x.py",)]


def test_nothing_is_editable_unless_it_says_so():
    assert kinds(check_paths(["a.py"], [], [])) == {"outside_editable": Severity.STRUCTURAL}


@pytest.mark.parametrize("path", ["train/sitecustomize.py", "train/conftest.py"])
def test_a_file_that_python_runs_by_itself_asks_for_a_reader(path):
    assert kinds(check_paths([path], EDITABLE, PROTECTED)) == {"startup_hook": Severity.REVIEW}


HONEST = '''
"""A small transformer, as an honest researcher would write it."""
import argparse
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch._inductor.config
import torch.nn as nn
import torch.nn.functional as F
import triton
import triton.language as tl
from torch.utils.data import DataLoader

from .optim import Muon

torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.benchmark = True
torch._inductor.config.coordinate_descent_tuning = True
torch._dynamo.config.cache_size_limit = 64
torch.set_float32_matmul_precision("high")
PATTERN = re.compile(r"\\w+")


@dataclass
class Config:
    width: int = 256
    signal: float = 1.0


@triton.jit
def kernel(x, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + offsets, tl.load(x + offsets, mask=offsets < n) * 2, mask=offsets < n)


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.proj = nn.Linear(config.width, config.width, bias=False)
        self.proj.weight.data.zero_()

    def forward(self, x):
        x = F.rms_norm(x, (x.size(-1),))
        return x + F.scaled_dot_product_attention(x, x, x, is_causal=True) / math.sqrt(x.size(-1))


def train(model, steps, signal=0):
    model = torch.compile(model)
    optimizer = Muon(model.parameters(), lr=0.02)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    start = time.perf_counter()
    for step in range(steps):
        loss = F.cross_entropy(model(torch.randn(8, 16)), torch.randint(0, 9, (8,)))
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
    model.eval()
    exec_time = time.perf_counter() - start
    print(f"{exec_time=} {np.mean([1, 2])} {signal}")
'''


def test_honest_training_code_has_no_finding():
    assert lint("train.py", HONEST) == []


@pytest.mark.parametrize(
    "source, kind",
    [
        ("import ctypes", "native_code"),
        ("from torch.utils.cpp_extension import load_inline", "native_code"),
        ("import calls\ncalls.Pads.run = None", "harness"),
        ("from inside_call import fds", "harness"),
        ("import subprocess as sp", "process"),
        ("import os\nos.system('ls')", "process"),
        ("import os as o\no._exit(0)", "process"),
        ("from os import fork", "process"),
        ("import torch.multiprocessing as mp", "process"),
        ("import socket", "network"),
        ("import urllib.request", "network"),
        ("import torch\ntorch.hub.load('a', 'b')", "network"),
        ("from threading import Thread", "threads"),
        ("from concurrent.futures import ThreadPoolExecutor", "threads"),
        ("import signal", "exit_hooks"),
        ("def f():\n    import atexit", "exit_hooks"),
        ("exec('x = 1')", "dynamic_code"),
        ("run = eval", "dynamic_code"),
        ("__import__('os')", "dynamic_code"),
        ("import importlib", "dynamic_code"),
        ("import sys\nsys.modules['judge']", "dynamic_code"),
        ("import sys\nframe = sys._getframe(1)", "introspection"),
        ("import inspect\ninspect.currentframe()", "introspection"),
        ("import inspect\ninspect._getframe()", "introspection"),
        ("import gc\ngc.get_objects()", "introspection"),
        ("error.__traceback__.tb_frame.f_back.f_locals", "introspection"),
        ("import time\ntime.perf_counter = lambda: 0", "monkeypatch"),
        ("import torch\ntorch.cuda.Event.elapsed_time = fast", "monkeypatch"),
        ("import torch.nn.functional as F\nsetattr(F, 'cross_entropy', zero)", "monkeypatch"),
        ("import pickle", "pickle"),
        ("x = '" + "a" * 20_000 + "'", "large_literal"),
        ("x = 1  # \u202e reversed", "hidden_text"),
    ],
)
def test_code_that_reaches_outside_the_model_asks_for_a_reader(source, kind):
    found = kinds(lint("model.py", source))
    assert found.get(kind) is Severity.REVIEW
    assert Severity.STRUCTURAL not in found.values()


@pytest.mark.parametrize(
    "source, kind",
    [
        ("import os\nos.environ['PYTORCH_ALLOC_CONF'] = 'x'", "environment"),
        ("import gc\ngc.collect()", "collector"),
        ("class A:\n    def __eq__(self, other):\n        return True", "comparison"),
    ],
)
def test_what_honest_code_often_does_is_only_noted(source, kind):
    assert kinds(lint("model.py", source)) == {kind: Severity.INFO}


def test_a_finding_quotes_every_line_once():
    source = "import threading\n\f\nt = threading.Thread(target=threading.Event)\n"
    (finding,) = lint("a.py", source)
    assert finding.evidence == (
        "a.py:1: import threading",
        "a.py:3: t = threading.Thread(target=threading.Event)",
    )


@pytest.mark.parametrize("source", ["def f(:", "x = 1\0", "(" * 10_000 + ")" * 10_000, "\tx\n  y"])
def test_source_that_is_not_python_is_structural(source):
    assert kinds(lint("model.py", source)) == {"syntax": Severity.STRUCTURAL}


def test_an_odd_escape_is_not_our_business():
    assert lint("model.py", 'pattern = "\\d"') == []
