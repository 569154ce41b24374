"""Muon for the groups marked so, AdamW for the others.

Muon makes the step of a matrix orthogonal, so that all its directions move equally. Here with the Polar Express
polynomials, NorMuon's step length per row, and decay only where it agrees with the step ("cautious").

Sources: Jordan et al. 2024 (Muon); Amsel et al. 2025 (Polar Express); Li et al. 2025 (NorMuon); Chen et al. 2025
(cautious weight decay). Shapes: K matrices of one shape, stacked: [K, R, C].
"""

import torch

VARIANCE_BETA = 0.95
POLYNOMIALS = (  # a, b, c of each step x -> a x + b x^3 + c x^5 on the singular values
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233002906),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


class MuonAdamW(torch.optim.AdamW):
    """Groups with `"muon": True` hold matrices; their `momentum` is Nesterov's. All others are AdamW's."""

    def __init__(self, groups, **settings):
        super().__init__(groups, **settings)
        on_gpu = self.param_groups[0]["params"][0].is_cuda
        if on_gpu:
            torch._dynamo.config.recompile_limit = 64  # a program for each shape
        self.update = torch.compile(muon_update, fullgraph=True, dynamic=False) if on_gpu else muon_update

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            if group.get("muon"):
                shapes = sorted({p.shape for p in group["params"]})
                for shape in shapes:
                    self.move([p for p in group["params"] if p.shape == shape], group)
        return super().step()  # the matrices have no gradient any more

    def move(self, matrices, group):
        gradient = torch.stack([p.grad for p in matrices])  # [K, R, C]
        weight = torch.stack(list(matrices))
        state = self.state[matrices[0]]  # of all of them; the clearing of the states forgets it
        if not state:
            state["average"] = torch.zeros_like(gradient)
            state["variance"] = torch.zeros_like(gradient.mean(dim=side(gradient), keepdim=True))
        scalars = [torch.tensor(value) for value in (group["lr"], group["weight_decay"], group["momentum"])]
        weight = self.update(weight, gradient, state["average"], state["variance"], *scalars)
        torch._foreach_copy_(list(matrices), list(weight.unbind()))
        for p in matrices:
            p.grad = None


def side(x):  # the longer side of [K, R, C]
    return -1 if x.size(-2) >= x.size(-1) else -2


def muon_update(weight, gradient, average, variance, rate, decay, inertia):  # -> the new weight; moves the averages
    average.copy_(inertia * average + (1 - inertia) * gradient)
    update = inertia * average + (1 - inertia) * gradient  # Nesterov
    update = orthogonalise(update).float()
    update = even_out(update, variance)
    rate = rate * max(1.0, weight.size(-2) / weight.size(-1)) ** 0.5
    agrees = update * weight >= 0
    return weight - rate * update - rate * decay * weight * agrees


def orthogonalise(x):  # [K, R, C] -> nearly the closest matrices whose singular values are all 1
    is_tall = x.size(-2) > x.size(-1)
    x = x.bfloat16() if x.is_cuda else x
    x = x.mT if is_tall else x  # the products below are of the shorter side
    x = x / (1.02 * x.norm(dim=(-2, -1), keepdim=True) + 1e-6)
    for a, b, c in POLYNOMIALS:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


def even_out(update, variance):  # [K, R, C]: each row (column) as long as the running mean of its square says
    square = update.square().mean(dim=side(update), keepdim=True)
    variance.lerp_(square, 1 - VARIANCE_BETA)
    scale = variance.clamp(min=1e-10).rsqrt()
    length = square.sum(dim=(-2, -1), keepdim=True).sqrt()
    new_length = (square * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return update * scale * (length / new_length.clamp(min=1e-10))  # the matrix as a whole keeps its length
