"""Whether compiled starts compute what they compute uncompiled: `python -m tests.gpu.starts`, one JSON object.

Training runs compiled code with block masks, the judge calls the model as it is: both must be the same function. Also
looks whether a step of training makes the host wait anywhere, with PyTorch's own watch on synchronisation.
"""

from __future__ import annotations

import argparse
import json
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tests.gpu.variants import TINY
from tests.start_play import loaded

SMALL: dict[str, object] = {"DEPTH": 4, "DEVICE_ROWS": 8, "BATCH_TOKENS": 2**15}  # two passes a step
VARIANTS = ("modern", "modern+long", "modern+SHORT_WINDOW=256", "modern+whole_loss", "vanilla")


def measure(variants: list[str], device: torch.device, constants: dict[str, object]) -> dict[str, Any]:
    return {name: _checked(name, device, constants) for name in variants}


def _checked(name: str, device: torch.device, constants: dict[str, Any]) -> dict[str, Any]:
    with loaded(name, tiny=False, **constants) as tree:
        vocabulary, length = tree.model.VOCAB_SIZE, tree.model.SEQUENCE_LENGTH
        tree.harness.device, tree.harness.vocab_size, tree.harness.sequence_length = device.type, vocabulary, length
        tree.train.ROW_LENGTH = length
        with device:
            model = tree.model.build()
            inputs, targets = torch.randint(vocabulary, (2, tree.train.DEVICE_ROWS, length))
        _shake(model)
        loss_function = tree.train.compute_loss
        if device.type == "cuda":
            loss_function = torch.compile(loss_function, fullgraph=True, dynamic=False)
        compiled = _gradients(model, loss_function, inputs, targets)
        plain = _gradients(model, tree.train.compute_loss, inputs, targets)
        with torch.no_grad():
            scores = model(inputs).float().flatten(0, 1)
            judged = nn.functional.cross_entropy(scores, targets.flatten()).item()
        return {
            "loss_compiled": compiled[0], "loss_uncompiled": plain[0], "loss_as_judged": judged,
            "gradients_differ": {n: _relative(compiled[1][n], plain[1][n]) for n in _worst(compiled[1], plain[1])},
            "host_waits": _waits(tree.train, tree.data, tree.optim, model, loss_function, device),
        }  # fmt: skip


def _shake(model: nn.Module) -> None:
    """Away from the first values, of which many are zero."""
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))


def _gradients(
    model: nn.Module, loss_function: Any, inputs: Tensor, targets: Tensor
) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    loss = loss_function(model, inputs, targets)
    loss.backward()
    return loss.item(), {n: p.grad.float().clone() for n, p in model.named_parameters() if p.grad is not None}


def _relative(a: Tensor, b: Tensor) -> float:
    return round(float((a - b).norm() / b.norm().clamp(min=1e-12)), 5)


def _worst(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """The three parameters whose gradients differ most."""
    return sorted(b, key=lambda name: -_relative(a[name], b[name]))[:3]


def _waits(
    train: ModuleType, data: ModuleType, optim: ModuleType, model: nn.Module, loss_function: Any, device: torch.device
) -> str:
    """What PyTorch says of a step that waits for the device; empty where none does."""
    optimizer = optim.build_optimizer(model)
    tokens = torch.randint(train.harness.vocab_size, (1 << 17,)).to(torch.uint16)
    batches = data.Loader(tokens, train.DEVICE_ROWS, train.ROW_LENGTH, 1, device)
    for _ in range(2):
        train.train_step(model, optimizer, loss_function, batches, 0.1)
    if device.type == "cpu":
        return ""
    torch.cuda.set_sync_debug_mode("error")
    try:
        train.train_step(model, optimizer, loss_function, batches, 0.2).to("cpu", non_blocking=True)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.starts", description=__doc__.split("\n")[0])
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="two layers of 64 channels, 64 positions")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here; try --device cpu --tiny", file=sys.stderr)
        return 2
    constants = TINY if options.tiny else SMALL
    print(json.dumps(measure(options.variants.split(","), torch.device(options.device), constants)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
