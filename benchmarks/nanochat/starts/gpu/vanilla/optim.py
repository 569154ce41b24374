"""The optimizer and its learning rate: AdamW, linear warm-up, then a cosine down to a tenth.

Sources: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"; Brown et al. 2020 (GPT-3: betas, decay,
schedule).
"""

import math

import torch

LEARNING_RATE = 1e-3
BETA1 = 0.9
BETA2 = 0.95
EPSILON = 1e-8
WEIGHT_DECAY = 0.1
WARMUP = 0.05  # of the budget
FINAL_RATE = 0.1  # of LEARNING_RATE


def build_optimizer(model):
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]  # biases and norms: no decay
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON, fused=True)
    return optimizer


def learning_rate(progress):  # 0..1 of the budget -> the rate of this step
    warmup = min(1.0, progress / WARMUP)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return LEARNING_RATE * warmup * (FINAL_RATE + (1 - FINAL_RATE) * cosine)
