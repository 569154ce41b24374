"""A training loop as one would first write it, under the harness of the lab."""

import harness
import torch
from model import build
from optim import build_optimizers

BATCH_TOKENS = 2**19
DEVICE_ROWS = 128
ROW_LENGTH = harness.sequence_length
COMPILED_MUON = True
DEVICE = torch.device(harness.device)


def batches(tokens):  # the order of starts/gpu/modern, gathered while the GPU waits
    generator = torch.Generator().manual_seed(harness.seed)
    windows = tokens.view(torch.int16).unfold(0, ROW_LENGTH + 1, 1)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < DEVICE_ROWS:
            first = torch.randint(min(ROW_LENGTH, len(windows)), (), generator=generator).item()
            starts = torch.arange(first, len(windows), ROW_LENGTH)
            order = torch.cat((order, starts[torch.randperm(len(starts), generator=generator)]))
        rows, order = windows[order[:DEVICE_ROWS]].long(), order[DEVICE_ROWS:]
        rows = rows.to(DEVICE)
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def train_step(model, loss_function, optimizers, data, step, progress):
    passes = max(1, BATCH_TOKENS // (DEVICE_ROWS * ROW_LENGTH))
    total = 0.0
    for _ in range(passes):
        inputs, targets = next(data)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            loss = loss_function(inputs, targets)
        (loss / passes).backward()
        total += loss.detach() / passes
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * min(1.0, (1 - progress) / 0.5)
            if "momentum" in group:
                group["momentum"] = 0.85 + 0.1 * min(1.0, step / 300)
                group["weight_decay"] = 0.2 * (1 - progress)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total.item()


def main():
    torch.manual_seed(harness.seed)
    model = build(DEVICE)
    loss_function = torch.compile(model, dynamic=False) if DEVICE.type == "cuda" else model
    first = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = build_optimizers(model, COMPILED_MUON and DEVICE.type == "cuda")
    noise = torch.randint(harness.vocab_size, (2, DEVICE_ROWS, ROW_LENGTH), device=DEVICE)
    for _ in range(3):
        train_step(model, loss_function, optimizers, iter([noise] * 99), 0, 0.0)
    model.load_state_dict(first)
    for optimizer in optimizers:
        optimizer.state.clear()

    data = batches(harness.start_clock())
    step, progress = 0, 0.0
    while progress < 1:
        loss = train_step(model, loss_function, optimizers, data, step, progress)
        harness.log(step, loss=loss)
        step += 1
        progress = harness.progress()
    harness.submit(model.state_dict())


if __name__ == "__main__":
    main()
