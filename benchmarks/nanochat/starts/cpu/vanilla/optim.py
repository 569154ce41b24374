"""The optimizer and its learning rate: AdamW, linear warm-up, then constant.

Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
"""

import torch

LEARNING_RATE = 5e-3
BETA1 = 0.9
BETA2 = 0.95
EPSILON = 1e-8
WEIGHT_DECAY = 0.1
WARMUP = 0.05  # of the budget


def build_optimizer(model):
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]  # biases and norms: no decay
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # fused: 0.5 ms of 4.8 ms a step on one core; foreach 1.1 ms, one by one 1.2 ms
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON, fused=True)
    return optimizer


def learning_rate(progress):  # 0..1 of the budget -> the rate of this step
    warmup = min(1.0, progress / WARMUP)
    return LEARNING_RATE * warmup
