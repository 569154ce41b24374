"""A head that learns within a row while it is scored: a step of gradient descent a position, in closed form.

The gradient of the loss at position i by the head is (chances - target) times the features at i. So after a step at
each position before t, the scores at t are the old ones, less those gradients times how alike the features at i and t
are. In place of their product stand kernels: exp(sharpness (cosine - 1)), and whether i and t end with the same two
tokens. No weight changes; what a position adds is what its next token, known by then, says of the chances that the
network gave it. The loss is convex in the rates of the kernels, so Newton's method finds the best ones in a few steps.

Sources: Krause et al. 2018 (dynamic evaluation); Grave et al. 2017 (continuous cache); Schlag et al. 2021 (fast
weights as sums of outer products).
Shapes: B rows, T positions, C width, V vocabulary, K kernels.
"""

import torch
import torch.nn.functional as F

FITTED_ON = 16  # rows of the training text
AT_A_TIME = 4  # of them
SHARPNESSES = (2.0, 8.0)  # what much of the row tells, and what positions like this one tell
KERNELS = len(SHARPNESSES) + 1
LOOKS = 8  # at rates, each by a step of Newton's method or, where the last went too far, by a part of it
DAMPING = 0.01  # of each step, as Levenberg and Marquardt have it: two kernels may be almost the same


def kernels(features, tokens):
    """How alike each position is to those before it: features [B, T, C] and tokens [B, T] -> [K, B, T, T]."""
    unit = F.normalize(features.float(), dim=-1).to(features.dtype)
    cosine = (unit @ unit.mT).float()
    same = tokens.unsqueeze(-1) == tokens.unsqueeze(-2)
    before = F.pad(same[:, :-1, :-1], (1, 0, 1, 0))  # of the tokens before; the first has none
    alike = [torch.exp(sharpness * (cosine - 1)) for sharpness in SHARPNESSES]
    return torch.stack([*alike, (same & before).float()]).tril(-1)


def missed(scores, tokens):
    """Target less chances, at all positions but the last: scores [B, T, V] and tokens [B, T] -> [B, T, V]."""
    found = -scores.softmax(dim=-1)
    known = tokens[:, 1:].unsqueeze(-1)  # what followed each position
    found[:, :-1].scatter_add_(-1, known, torch.ones_like(known, dtype=found.dtype))
    return found


def correction(features, scores, tokens, rates):
    """What is added to the scores: features [B, T, C], scores [B, T, V], tokens [B, T] and rates [K] -> [B, T, V]."""
    likeness = torch.einsum("k,kbst->bst", rates, kernels(features, tokens))
    return (likeness.to(features.dtype) @ missed(scores, tokens).to(features.dtype)).float()


def evenly(last):
    """FITTED_ON places from 0 to `last`, in whole numbers: those of float32 are off by some in a text of millions."""
    return [number * last // (FITTED_ON - 1) for number in range(FITTED_ON)]


@torch.no_grad()
def fit_online(model, tokens, length):
    """Set the rates of a trained model to those that suit rows of `tokens` best.

    tokens: uint16 [n], on the CPU. The network has seen them; what a row tells of itself is new to it all the same.
    """
    model.eval()
    model.online.zero_()
    text = tokens.view(torch.int16)  # ids are below 32,768
    rows = torch.stack([text[at : at + length + 1] for at in evenly(len(text) - length - 1)])
    parts = []
    for some in rows.long().to(model.online.device).split(AT_A_TIME):
        inputs, targets = some[:, :-1], some[:, 1:].unsqueeze(-1)
        features, scores = model.features(inputs), model(inputs)
        wrong = missed(scores, inputs).to(features.dtype)
        steps = torch.stack([(likeness.to(wrong.dtype) @ wrong).float() for likeness in kernels(features, inputs)])
        parts.append((scores, steps, targets))
    best = float("inf")
    rates = step = torch.zeros_like(model.online)
    for _ in range(LOOKS):
        loss, slope, curvature = (sum(found) for found in zip(*(at(rates, *part) for part in parts), strict=True))
        if loss < best:
            best = loss
            model.online.copy_(rates)
            damped = (curvature + DAMPING * curvature.diagonal().diag()).double().cpu()
            step = -(torch.linalg.pinv(damped, hermitian=True) @ slope.double().cpu()).to(rates)
        else:  # too far
            step = step / 4
        rates = model.online + step
    model.train()


def at(rates, scores, steps, targets):
    """Loss, slope [K] and curvature [K, K] by `rates` [K], in nats, of all positions together.

    scores [B, T, V]; steps [K, B, T, V], what a unit of each rate adds to them; targets [B, T, 1].
    """
    scores = scores + torch.einsum("k,kbtv->btv", rates, steps)
    total = scores.logsumexp(dim=-1, keepdim=True)
    loss = (total - scores.gather(-1, targets)).sum()
    weighted = steps * (scores - total).exp()  # by chances
    means = weighted.sum(dim=-1)  # [K, B, T]
    wanted = steps.gather(-1, targets.expand(len(rates), -1, -1, -1)).squeeze(-1)
    products = torch.stack([(one * steps).sum(dim=(1, 2, 3)) for one in weighted])
    return loss, (means - wanted).sum(dim=(1, 2)), products - torch.einsum("kbt,lbt->kl", means, means)
