"""The optimizer: Muon for the matrices of the blocks, AdamW for tables, head and scalars; rates and schedules.

Muon makes the step of a matrix orthogonal, so that all its directions move equally. Here with the Polar Express
polynomials, NorMuon's step length per row and decay only where it agrees with the step ("cautious").

Sources: Jordan et al. 2024 (Muon); Amsel et al. 2025 (Polar Express); Li et al. 2025 (NorMuon); Chen et al. 2025
(cautious weight decay); Loshchilov and Hutter 2019 (AdamW). Rates as in karpathy/autoresearch.
Shapes: K matrices of one shape, stacked: [K, R, C].
"""

import torch

MATRIX_RATE = 0.04
EMBEDDING_RATE = 0.6  # times ADAM_SCALE, like the rate of the head
HEAD_RATE = 0.004
VECTOR_RATE = 0.005  # residual lambdas
X0_RATE = 0.5
ADAM_WIDTH = 768  # the width that the rates of tables and head were found at
BETA1 = 0.8
X0_BETA1 = 0.96
BETA2 = 0.95
EPSILON = 1e-10
MOMENTUM = 0.95
FIRST_MOMENTUM = 0.85
MOMENTUM_WARMUP = 300  # steps
VARIANCE_BETA = 0.95
WEIGHT_DECAY = 0.2  # of matrices, falling to 0
WARMDOWN = 0.5  # of the budget
POLYNOMIALS = (  # a, b, c of each step x -> a x + b x^3 + c x^5 on the singular values
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def learning_rate(progress):  # 0..1 of the budget -> factor of every rate
    return max(0.0, min(1.0, (1 - progress) / WARMDOWN))


def weight_decay(progress):  # 0..1 of the budget -> decay of the matrices
    return WEIGHT_DECAY * max(0.0, 1 - progress)


def momentum(step):
    share = min(1.0, step / MOMENTUM_WARMUP)
    return FIRST_MOMENTUM + share * (MOMENTUM - FIRST_MOMENTUM)


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
    longer_side = -1 if update.size(-2) >= update.size(-1) else -2
    square = update.square().mean(dim=longer_side, keepdim=True)
    variance.lerp_(square, 1 - VARIANCE_BETA)
    scale = variance.clamp(min=1e-10).rsqrt()
    length = square.sum(dim=(-2, -1), keepdim=True).sqrt()
    new_length = (square * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return update * scale * (length / new_length.clamp(min=1e-10))  # the matrix as a whole keeps its length


def muon_update(weight, gradient, average, variance, rate, decay, inertia):  # in place; the last three are scalars
    average.copy_(inertia * average + (1 - inertia) * gradient)
    update = inertia * average + (1 - inertia) * gradient  # Nesterov
    update = orthogonalise(update).float()
    update = even_out(update, variance)
    rate = rate * max(1.0, weight.size(-2) / weight.size(-1)) ** 0.5
    agrees = update * weight >= 0
    weight.copy_(weight - rate * update - rate * decay * weight * agrees)


def adamw_update(weight, gradient, average, variance, rate, beta1, fade1, fade2):  # in place; the last four are scalars
    gradient = gradient.float()
    average.copy_(beta1 * average + (1 - beta1) * gradient)
    variance.copy_(BETA2 * variance + (1 - BETA2) * gradient.square())
    update = (average / fade1) / ((variance / fade2).sqrt() + EPSILON)
    weight.copy_(weight - rate * update)


class MuonAdamW:
    def __init__(self, model):
        width_scale = (model.head.in_features / ADAM_WIDTH) ** -0.5
        tables = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
        named = [model.head.weight, model.x0_lambdas, *tables]
        others = [(name, p) for name, p in model.named_parameters() if all(p is not other for other in named)]
        vectors = [p for _, p in others if p.ndim < 2]
        shapes = {p: matrix_shape(name, p) for name, p in others if p.ndim >= 2}
        self.adamw_groups = [
            {"params": tables, "rate": EMBEDDING_RATE * width_scale, "beta1": BETA1},
            {"params": [model.head.weight], "rate": HEAD_RATE * width_scale, "beta1": BETA1},
            {"params": vectors, "rate": VECTOR_RATE, "beta1": BETA1},
            {"params": [model.x0_lambdas], "rate": X0_RATE, "beta1": X0_BETA1},
        ]
        self.muon_groups = [
            {"params": [p for p in shapes if shapes[p] == shape], "shape": shape, "rate": MATRIX_RATE}
            for shape in sorted(set(shapes.values()))
        ]
        on_gpu = model.head.weight.is_cuda
        torch._dynamo.config.recompile_limit = 64  # a program for each shape: more than the eight that are let
        self.adamw_update = torch.compile(adamw_update, fullgraph=True, dynamic=False) if on_gpu else adamw_update
        self.muon_update = torch.compile(muon_update, fullgraph=True, dynamic=False) if on_gpu else muon_update
        self.reset()

    def reset(self):
        """Forget every step."""
        self.steps = 0
        for group in self.adamw_groups:
            group["average"] = [torch.zeros_like(p) for p in group["params"]]
            group["variance"] = [torch.zeros_like(p) for p in group["params"]]
        for group in self.muon_groups:
            weight = stack(group["params"], group["shape"])
            longer_side = -1 if weight.size(-2) >= weight.size(-1) else -2
            group["average"] = torch.zeros_like(weight)
            group["variance"] = torch.zeros_like(weight.mean(dim=longer_side, keepdim=True))

    @torch.no_grad()
    def step(self, progress):  # 0..1 of the budget
        self.steps += 1
        factor = learning_rate(progress)
        for group in self.adamw_groups:
            beta1 = group["beta1"]
            scalars = scalar(factor * group["rate"], beta1, 1 - beta1**self.steps, 1 - BETA2**self.steps)
            for p, average, variance in zip(group["params"], group["average"], group["variance"], strict=True):
                self.adamw_update(p, p.grad, average, variance, *scalars)
        for group in self.muon_groups:
            scalars = scalar(factor * group["rate"], weight_decay(progress), momentum(self.steps - 1))
            weight = stack(group["params"], group["shape"])
            gradient = stack([p.grad for p in group["params"]], group["shape"])
            self.muon_update(weight, gradient, group["average"], group["variance"], *scalars)
            unstack(weight, group["params"])

    def zero_grad(self):
        for group in (*self.adamw_groups, *self.muon_groups):
            for p in group["params"]:
                p.grad = None


def matrix_shape(name, p):  # queries, keys and values share one parameter, and are three matrices
    rows, columns = p.shape[-2:]
    return (rows // 3, columns) if "query_key_value" in name else (rows, columns)


def stack(matrices, shape):  # -> [K, R, C], a copy
    return torch.cat([p.view(-1, *shape) for p in matrices])


def unstack(stacked, matrices):  # writes [K, R, C] back
    parts = stacked.split([p.numel() // stacked[0].numel() for p in matrices])
    torch._foreach_copy_(list(matrices), [part.reshape(p.shape) for part, p in zip(parts, matrices, strict=True)])


def scalar(*values):  # to compiled code a new tensor is an input, a new number another program
    return [torch.tensor(value, dtype=torch.float32, device="cpu") for value in values]


def build_optimizer(model):
    return MuonAdamW(model)
