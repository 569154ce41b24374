"""Train the model for a fixed budget of CPU time on one core, then hand over its weights.

The harness holds the text, the clock and the score; this program sees the training text and nothing else.
"""

import harness
import torch
import torch.nn.functional as F
from model import build
from optim import build_optimizer, learning_rate

THREADS = 1  # the budget counts the CPU time of all threads
BATCH_SIZE = 4  # rows a step
ROW_LENGTH = harness.sequence_length  # bytes a row, as many as in scoring
STOP_AT = 0.97  # of the budget; the rest is for a late step and for handing over the weights (50 ms for 22 MB)
LOG_EVERY = 20  # steps


def sample_batch(windows, generator):  # [N, T + 1] uint8 -> [B, T] and [B, T] int64
    starts = torch.randint(len(windows), (BATCH_SIZE,), generator=generator)
    rows = windows[starts].long()  # [B, T + 1]
    inputs = rows[:, :-1]
    targets = rows[:, 1:]
    return inputs, targets


def compute_loss(model, inputs, targets):  # [B, T] and [B, T] -> mean cross-entropy in nats
    scores = model(inputs)  # [B, T, V]
    scores = scores.flatten(0, 1)
    targets = targets.flatten()
    return F.cross_entropy(scores, targets)


def warm_up(model):  # untimed: the first step takes 20 times as long as the later ones
    noise = torch.randint(harness.vocab_size, (BATCH_SIZE, ROW_LENGTH))
    compute_loss(model, noise, noise).backward()
    model.zero_grad(set_to_none=True)


def main():
    torch.set_num_threads(THREADS)
    torch.manual_seed(harness.seed)
    model = build()
    optimizer = build_optimizer(model)
    warm_up(model)
    generator = torch.Generator().manual_seed(harness.seed)  # the order of the data

    tokens = harness.start_clock()  # [n] uint8
    windows = tokens.unfold(0, ROW_LENGTH + 1, 1)  # [n - T, T + 1], a view
    step = 0
    progress = 0.0  # of the budget
    step_share = 0.0  # of the budget, the last step
    while progress + step_share < STOP_AT:
        rate = learning_rate(progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = sample_batch(windows, generator)
        loss = compute_loss(model, inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % LOG_EVERY == 0:
            harness.log(step, loss=loss.item(), learning_rate=rate)
        step += 1
        previous = progress
        progress = harness.progress()
        step_share = progress - previous
    harness.submit(model.state_dict())


if __name__ == "__main__":
    main()
