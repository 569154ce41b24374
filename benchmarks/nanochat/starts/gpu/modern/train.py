"""Train the model for a fixed budget of seconds on one GPU, then hand over its weights.

The harness holds the text, the clock and the score; this program sees the training text and nothing else. It compiles
and warms up before the clock starts. Inside the loop nothing waits for the GPU but the one event that keeps the host
a step ahead of it.
"""

import gc
import math
from collections import deque

import harness
import torch
from data import Loader
from model import SOFTCAP, build
from optim import build_optimizer, learning_rate

BATCH_TOKENS = 2**19  # a step
DEVICE_ROWS = 64  # rows a pass; a step is as many passes as it takes
ROW_LENGTH = harness.sequence_length  # tokens a row, as many as in scoring
LOSS_ROWS = 2**15  # positions whose scores exist at a time
COMPILE_MODE = "default"
WARM_UP_STEPS = 3
HAND_OVER_SECONDS = 0.5  # for handing over the weights, at most 5 % of the budget
STOP_AT = 1 - min(0.05, HAND_OVER_SECONDS / harness.budget_seconds)  # of the budget
LOG_EVERY = 1  # steps


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy of softcapped scores, in nats, with its gradient computed in the forward pass.

    The scores are made a part of the rows at a time, and only in the type of x: one part's are in memory, never
    those of the batch, and each is written and read once.
    """

    @staticmethod
    def forward(ctx, x, weight, targets):  # [N, C], [V, C] and [N] -> scalar
        head = weight.to(x.dtype)
        loss = torch.zeros((), device=x.device)
        weight_gradient = torch.zeros_like(weight)
        x_gradients = []
        for rows, wanted in zip(x.split(LOSS_ROWS), targets.split(LOSS_ROWS), strict=True):
            scores = rows @ head.t()  # [R, V]
            losses, gradient = capped_cross_entropy(scores, wanted)
            loss = loss + losses.sum()
            weight_gradient = weight_gradient + gradient.t() @ rows
            x_gradients.append(gradient @ head)
            # The next part begins after this one: a compiler would make the scores of all of them first.
            head = torch.where(loss.isnan(), loss, head)
        ctx.save_for_backward(torch.cat(x_gradients), weight_gradient)
        return loss / len(x)

    @staticmethod
    def backward(ctx, loss_gradient):
        x_gradient, weight_gradient = ctx.saved_tensors
        scale = loss_gradient / len(x_gradient)
        return x_gradient * scale.to(x_gradient.dtype), weight_gradient * scale, None


def capped_cross_entropy(scores, targets):  # [R, V] and [R] -> losses [R] and their gradient by the scores [R, V]
    half = torch.sigmoid(2 / SOFTCAP * scores.float())  # tanh(x) = 2 sigmoid(2 x) - 1, and cheaper so, as is exp2
    weights = torch.exp2(SOFTCAP / math.log(2) * (2 * half - 1))  # at most e^SOFTCAP: nothing need be subtracted
    total = weights.sum(dim=-1, keepdim=True)
    is_target = torch.arange(scores.size(-1), device=scores.device) == targets.unsqueeze(-1)
    target = scores.gather(-1, targets.unsqueeze(-1)).float()
    losses = total.log() - SOFTCAP * torch.tanh(target / SOFTCAP)
    gradient = (weights * (1 / total) - is_target.float()) * (4 * half * (1 - half))
    return losses.squeeze(-1), gradient.to(scores.dtype)


def compute_loss(model, inputs, targets):  # [B, T] and [B, T] -> mean cross-entropy in nats
    x = model.features(inputs)  # [B, T, C]
    x = x.flatten(0, 1)
    targets = targets.flatten()
    loss = HeadLoss.apply(x, model.head.weight, targets)
    return loss


def train_step(model, optimizer, loss_function, batches, progress):  # -> mean loss of the step, still on the device
    passes = max(1, BATCH_TOKENS // (DEVICE_ROWS * ROW_LENGTH))
    total = 0.0
    for _ in range(passes):
        inputs, targets = next(batches)
        loss = loss_function(model, inputs, targets) / passes
        loss.backward()
        total = total + loss.detach()
    optimizer.step(progress)
    optimizer.zero_grad()
    return total


def warm_up(model, optimizer, loss_function, device):  # untimed: compiles, and leaves no trace in the weights
    first = {name: value.clone() for name, value in model.state_dict().items()}
    batches = noise(device)
    for _ in range(WARM_UP_STEPS):
        train_step(model, optimizer, loss_function, batches, 0.0)
    model.load_state_dict(first)
    optimizer.reset()
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection would stop the host in the middle of a step


def noise(device):  # batches of random tokens
    while True:
        yield torch.randint(harness.vocab_size, (2, DEVICE_ROWS, ROW_LENGTH), device=device)


def ended(device):  # -> an event at the end of what the GPU was told so far; None on a CPU, which is there already
    return torch.cuda.current_stream().record_event() if device.type == "cuda" else None


def main():
    device = torch.device(harness.device)
    torch.manual_seed(harness.seed)
    with device:
        model = build()
    optimizer = build_optimizer(model)
    loss_function = compute_loss
    if device.type == "cuda":
        loss_function = torch.compile(compute_loss, mode=COMPILE_MODE, fullgraph=True, dynamic=False)
    warm_up(model, optimizer, loss_function, device)
    harness.reserve(model.state_dict())

    tokens = harness.start_clock()  # [n] uint16
    batches = Loader(tokens, DEVICE_ROWS, ROW_LENGTH, harness.seed, device)
    step = 0
    running = deque()  # steps that the GPU may still be at, at most two
    finished = 0.0  # share of the budget at which the last finished step ended
    step_share = 0.0  # of the budget, the last step
    while True:
        progress = finished + len(running) * step_share  # at which this step will begin
        if progress + step_share > STOP_AT:
            break
        loss = train_step(model, optimizer, loss_function, batches, progress / STOP_AT)
        loss = loss.to("cpu", non_blocking=True)
        running.append((step, loss, learning_rate(progress / STOP_AT), ended(device)))
        step += 1
        if len(running) == 2:
            finish(*running.popleft())
            previous = finished
            finished = harness.progress()
            step_share = finished - previous
    while running:
        finish(*running.popleft())
    harness.submit(model.state_dict())


def finish(step, loss, rate, end):  # wait for a step, and log what it gave
    if end is not None:
        end.synchronize()
    if step % LOG_EVERY == 0:
        harness.log(step, loss=loss.item(), learning_rate=rate)


if __name__ == "__main__":
    main()
