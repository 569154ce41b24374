"""The text of update rules that techniques of the optimizer put into optim.py.

`apart` gives some parameters a group of their own. `flat` lays the parameters of a group side by side in one tensor, so
that an update rule costs a few operations on one long vector instead of a few on each of 30 short ones; the rules
written out here (OwnAdamW, Lion, ScheduleFree) work on such vectors. Muon works on matrices, in batches of one shape.
"""

APART = """
def apart(groups, chosen, **settings):  # the chosen parameters in groups of their own, with these settings
    chosen = set(chosen)
    rest = [group | {"params": [p for p in group["params"] if p not in chosen]} for group in groups]
    own = [group | {"params": [p for p in group["params"] if p in chosen], **settings} for group in groups]
    return [group for group in rest + own if group["params"]]
"""

FLAT = '''
def flat(groups):
    """Lay the parameters of each group side by side in one vector; the model's own become views of it."""
    for group in groups:
        parts = group["params"]
        whole = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in parts]))
        for part, values in zip(parts, whole.detach().split([p.numel() for p in parts]), strict=True):
            part.data = values.view_as(part)
        group |= {"params": [whole], "parts": parts}
    return groups


def gather(optimizer, args, kwargs):  # before each step: the gradients side by side too
    for group in optimizer.param_groups:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group["parts"]]
        group["params"][0].grad = torch.cat([gradient.flatten() for gradient in gradients])
        for part in group["parts"]:
            part.grad = None
'''

OWN_ADAMW = '''
class OwnAdamW(torch.optim.Optimizer):
    """AdamW written out, for vectors made by `flat`."""

    def __init__(self, groups, lr, betas, eps):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self.steps = 0
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"momentum": torch.zeros_like(p), "variance": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self):
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                self.update(p, p.grad, group, **self.state[p])

    def update(self, p, gradient, group, momentum, variance):  # all [n]
        beta1, beta2 = group["betas"]
        momentum.lerp_(gradient, 1 - beta1)
        variance.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        direction = momentum / (1 - beta1**self.steps)
        scale = (variance / (1 - beta2**self.steps)).sqrt_().add_(group["eps"])
        update = direction / scale
        decay = p * group["weight_decay"]
        p.sub_(update + decay, alpha=group["lr"])
'''

LION = '''
class Lion(torch.optim.Optimizer):
    """The sign of an interpolated momentum, for vectors made by `flat`."""

    def __init__(self, groups, lr, betas):
        super().__init__(groups, {"lr": lr, "betas": betas})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"momentum": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                momentum = self.state[p]["momentum"]
                direction = momentum.lerp(p.grad, 1 - beta1).sign_()
                momentum.lerp_(p.grad, 1 - beta2)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(direction, alpha=group["lr"] * LION_RATE_SCALE)
'''

SCHEDULE_FREE = '''
class ScheduleFree(torch.optim.Optimizer):
    """AdamW at points between fast weights and their average, for vectors made by `flat`; the average is handed in."""

    def __init__(self, groups, lr, beta1, beta2, eps):
        super().__init__(groups, {"lr": lr, "eps": eps})
        self.beta1, self.beta2 = beta1, beta2
        self.steps = 0
        self.weights = 0.0
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"fast": p.detach().clone(), "variance": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self):
        self.steps += 1
        weight = max(group["lr"] for group in self.param_groups) ** 2 * self.steps**AVERAGE_POWER
        self.weights += weight
        share = weight / max(self.weights, 1e-20)  # of this step in the average
        for group in self.param_groups:
            rate = group["lr"]
            for p in group["params"]:
                fast, variance = self.state[p]["fast"], self.state[p]["variance"]
                variance.mul_(self.beta2).addcmul_(p.grad, p.grad, value=1 - self.beta2)
                scale = (variance / (1 - self.beta2**self.steps)).sqrt_().add_(group["eps"])
                update = (p.grad / scale).add_(p, alpha=group["weight_decay"])
                p.lerp_(fast, share).sub_(update, alpha=rate * (1 - self.beta1 * (1 - share)))
                fast.sub_(update, alpha=rate)

    @torch.no_grad()
    def finish(self):  # the weights become the average
        for p, state in self.state.items():
            p.lerp_(state["fast"], 1 - 1 / self.beta1)
'''

MUON = '''
class Muon:
    """Momentum made orthogonal by Newton-Schulz steps; matrices of one shape, up to transposition, in one batch."""

    def __init__(self, matrices):
        shapes = dict.fromkeys(tuple(sorted(p.shape)) for p in matrices)
        self.param_groups = []
        for shape in shapes:
            params = [p for p in matrices if tuple(sorted(p.shape)) == shape]
            average = torch.zeros(len(params), *shape)  # of the gradients, [n, r, c], r <= c
            group = {"params": params, "average": average, "momentum": MUON_MOMENTUM, "lr": LEARNING_RATE}
            self.param_groups.append(group | {"weight_decay": WEIGHT_DECAY})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            matrices = [wide(p) for p in group["params"]]
            gradient = torch.stack([wide(p.grad) for p in group["params"]])  # [n, r, c]
            average = group["average"]
            average.lerp_(gradient, 1 - group["momentum"])
            update = orthogonal(gradient.lerp(average, group["momentum"]))  # Nesterov
            size = MUON_SIZE * update.size(-1) ** 0.5  # times this, the entries are near 1, as those of Adam's updates
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, update.unbind(), alpha=-group["lr"] * size)

    def zero_grad(self, set_to_none=True):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None


class Together:
    """Two optimizers behind the face of one."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers
        self.param_groups = [group for optimizer in optimizers for group in optimizer.param_groups]

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none=True):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)


def wide(matrix):  # [out, in] -> [r, c], r <= c
    return matrix if matrix.size(0) <= matrix.size(1) else matrix.mT


def orthogonal(x):  # [n, r, c] -> [n, r, c], all singular values near 1
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x
'''
