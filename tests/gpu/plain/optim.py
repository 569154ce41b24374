"""Muon with NorMuon's rows and cautious decay, one matrix after another; AdamW by PyTorch. Rates as in the start."""

import torch

COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


class Muon(torch.optim.Optimizer):
    def __init__(self, params, compiled):
        super().__init__(params, {"lr": 0.04, "momentum": 0.95, "weight_decay": 0.2})
        self.direction = torch.compile(direction, dynamic=False) if compiled else direction

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    axis = -1 if p.size(0) >= p.size(1) else -2
                    state["average"] = torch.zeros_like(p)
                    state["variance"] = torch.zeros_like(p.mean(dim=axis, keepdim=True))
                state["average"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["average"], group["momentum"])
                update = self.direction(update, state["variance"])
                rate = group["lr"] * max(1.0, p.size(0) / p.size(1)) ** 0.5
                p.mul_(1 - rate * group["weight_decay"] * (update * p >= 0))
                p.add_(update, alpha=-rate)


def direction(update, variance):
    x = update.bfloat16() if update.is_cuda else update
    if x.size(0) > x.size(1):
        x = x.T
    x = x / (1.02 * x.norm() + 1e-6)
    for a, b, c in COEFFICIENTS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    if update.size(0) > update.size(1):
        x = x.T
    x = x.float()
    axis = -1 if x.size(0) >= x.size(1) else -2
    square = x.square().mean(dim=axis, keepdim=True)
    variance.lerp_(square, 0.05)
    scale = variance.clamp(min=1e-10).rsqrt()
    return x * scale * (square.sum() / (square * scale.square()).sum().clamp(min=1e-20)).sqrt()


def build_optimizers(model, compiled):
    width_scale = (model.head.in_features / 768) ** -0.5
    tables = [model.embedding.weight, *(table.weight for table in model.value_embeddings.values())]
    groups = [
        {"params": tables, "lr": 0.6 * width_scale},
        {"params": [model.head.weight], "lr": 0.004 * width_scale},
        {"params": [model.residual_lambdas], "lr": 0.005},
        {"params": [model.x0_lambdas], "lr": 0.5, "betas": (0.96, 0.95)},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
    muon = Muon([p for block in model.blocks for p in block.parameters()], compiled)
    for group in (*adamw.param_groups, *muon.param_groups):
        group["initial_lr"] = group["lr"]
    return adamw, muon
