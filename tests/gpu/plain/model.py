"""The model of `starts/gpu/modern` as one would first write it: what `python -m tests.gpu.throughput` compares with.

The same function of the same weights with long windows everywhere (tests/test_gpu_starts.py), in the plainest PyTorch:
a linear layer for each of queries, keys and values, autocast, scores of the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import nn

VOCAB_SIZE = 8192
SEQUENCE_LENGTH = 2048
DEPTH = 8
WIDTH = 512
HEADS = 4
GATE_CHANNELS = 32


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


class Attention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate = nn.Linear(GATE_CHANNELS, HEADS, bias=False) if layer % 2 == (DEPTH - 1) % 2 else None

    def forward(self, x, value_embedding, cosine, sine):
        B, T, _ = x.shape
        q = self.query(x).view(B, T, HEADS, -1)
        k = self.key(x).view(B, T, HEADS, -1)
        v = self.value(x).view(B, T, HEADS, -1)
        if self.gate is not None:
            gate = 2 * torch.sigmoid(self.gate(x[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * value_embedding.view(B, T, HEADS, -1)
        q = norm(rotate(q, cosine, sine))
        k = norm(rotate(k, cosine, sine))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(B, T, WIDTH))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.attention = Attention(layer)
        self.mlp = MLP()

    def forward(self, x, value_embedding, cosine, sine):
        x = x + self.attention(norm(x), value_embedding, cosine, sine)
        return x + self.mlp(norm(x))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.blocks = nn.ModuleList([Block(layer) for layer in range(DEPTH)])
        self.value_embeddings = nn.ModuleDict(
            {str(n): nn.Embedding(VOCAB_SIZE, WIDTH) for n in range(DEPTH) if self.blocks[n].attention.gate is not None}
        )
        self.residual_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), 0.1))
        self.head = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)
        half = WIDTH // HEADS // 2
        angle = torch.outer(torch.arange(SEQUENCE_LENGTH), 10_000 ** -(torch.arange(half) / half))
        self.register_buffer("cosine", angle.cos().view(1, -1, 1, half), persistent=False)
        self.register_buffer("sine", angle.sin().view(1, -1, 1, half), persistent=False)

    def forward(self, tokens, targets):  # two of [B, T] -> mean cross-entropy
        T = tokens.size(1)
        cosine, sine = self.cosine[:, :T], self.sine[:, :T]
        x = x0 = norm(self.embedding(tokens))
        for n, block in enumerate(self.blocks):
            x = self.residual_lambdas[n] * x + self.x0_lambdas[n] * x0
            value_embedding = self.value_embeddings[str(n)](tokens) if str(n) in self.value_embeddings else None
            x = block(x, value_embedding, cosine, sine)
        scores = self.head(norm(x)).float()
        scores = 15 * torch.tanh(scores / 15)
        return F.cross_entropy(scores.view(-1, scores.size(-1)), targets.view(-1))


def rotate(x, cosine, sine):  # [B, T, H, D]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, a * sine + b * cosine), dim=-1).to(x.dtype)


@torch.no_grad()
def build(device):
    model = Transformer()
    bound = (3 / WIDTH) ** 0.5
    nn.init.normal_(model.embedding.weight)
    nn.init.normal_(model.head.weight, std=0.001)
    for block in model.blocks:
        for layer in (block.attention.query, block.attention.key, block.attention.value, block.mlp.up):
            nn.init.uniform_(layer.weight, -bound, bound)
        for layer in (block.attention.output, block.mlp.down):
            nn.init.zeros_(layer.weight)
        if block.attention.gate is not None:
            nn.init.zeros_(block.attention.gate.weight)
    for table in model.value_embeddings.values():
        nn.init.uniform_(table.weight, -bound, bound)
    model.to(device)
    if device.type == "cuda":
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.to(torch.bfloat16)
    return model
