"""A head that learns within a row while it is scored: a step of gradient descent a position, in closed form.

The gradient of the loss at position i by the head is (chances - target) times the features at i. So after a step at
each position before t, the scores at t are the old ones, less those gradients times how alike the features at i and t
are. `likeness` stands for their product: exp(sharpness (cosine - 1)), a kernel in its place. No weight changes; what a
position adds is what its next token, known by then, says of the chances that the network gave it.

Sources: Krause et al. 2018 (dynamic evaluation); Grave et al. 2017 (continuous cache); Schlag et al. 2021 (fast
weights as sums of outer products).
Shapes: B rows, T positions, C width, V vocabulary.
"""

import torch
import torch.nn.functional as F

FITTED_ON = 16  # rows of the training text
AT_A_TIME = 4  # of them
RATES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
SHARPNESSES = (3.0, 6.0, 12.0)


def correction(features, scores, tokens, sharpness):
    """What one unit of rate adds to the scores: features [B, T, C], scores [B, T, V] and tokens [B, T] -> [B, T, V]."""
    unit = F.normalize(features.float(), dim=-1).to(features.dtype)
    likeness = torch.exp(sharpness * ((unit @ unit.mT).float() - 1)).tril(-1)  # [B, T, T], of earlier positions alone
    missed = -scores.softmax(dim=-1)
    known = tokens[:, 1:].unsqueeze(-1)  # what followed each position but the last
    missed[:, :-1].scatter_add_(-1, known, torch.ones_like(known, dtype=missed.dtype))
    return (likeness.to(features.dtype) @ missed.to(features.dtype)).float()


def evenly(last):
    """FITTED_ON places from 0 to `last`, in whole numbers: those of float32 are off by some in a text of millions."""
    return [number * last // (FITTED_ON - 1) for number in range(FITTED_ON)]


@torch.no_grad()
def fit_online(model, tokens, length):
    """Set the rate and the sharpness of a trained model to those of RATES and SHARPNESSES that suit rows of `tokens`.

    tokens: uint16 [n], on the CPU. The network has seen them; what a row tells of itself is new to it all the same.
    """
    model.eval()
    text = tokens.view(torch.int16)  # ids are below 32,768
    rows = torch.stack([text[at : at + length + 1] for at in evenly(len(text) - length - 1)])
    rows = rows.long().to(model.online.device)
    model.online.zero_()
    losses = torch.zeros(len(SHARPNESSES), len(RATES), device=rows.device)
    for some in rows.split(AT_A_TIME):
        inputs, targets = some[:, :-1], some[:, 1:]
        features, scores = model.features(inputs), model(inputs)
        for number, sharpness in enumerate(SHARPNESSES):
            step = correction(features, scores, inputs, sharpness)
            of_rates = [F.cross_entropy((scores + rate * step).flatten(0, 1), targets.flatten()) for rate in RATES]
            losses[number] += torch.stack(of_rates)
    best = int(losses.argmin())
    model.online[0], model.online[1] = RATES[best % len(RATES)], SHARPNESSES[best // len(RATES)]
    model.train()
