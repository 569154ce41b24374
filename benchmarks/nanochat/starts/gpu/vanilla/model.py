"""The model: a plain decoder-only Transformer over tokens, pre-norm, with learned absolute positions.

Training and scoring share this file. The judge calls build(), loads the submitted weights with strict=True
and calls forward on rows of up to SEQUENCE_LENGTH tokens.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners" (GPT-2).
Shapes: B rows, T positions, C width, H heads, D = C / H, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import nn

VOCAB_SIZE = 8192
SEQUENCE_LENGTH = 2048
DEPTH = 8
WIDTH = 512
HEADS = 4
MLP_WIDTH = 4 * WIDTH
INIT_STD = 0.02


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.attention_output = nn.Linear(WIDTH, WIDTH)

    def forward(self, attention_input):  # [B, T, C] -> [B, T, C]
        q = self.query(attention_input)
        k = self.key(attention_input)
        v = self.value(attention_input)
        q = split_heads(q)  # [B, H, T, D]
        k = split_heads(k)
        v = split_heads(v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = merge_heads(y)
        y = self.attention_output(y)
        return y


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.expand = nn.Linear(WIDTH, MLP_WIDTH)
        self.contract = nn.Linear(MLP_WIDTH, WIDTH)

    def forward(self, mlp_input):  # [B, T, C] -> [B, T, C]
        h = self.expand(mlp_input)  # [B, T, 4C]
        h = F.gelu(h)
        h = self.contract(h)
        return h


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.mlp = MLP()

    def forward(self, x):  # [B, T, C] -> [B, T, C]
        attention_input = self.attention_norm(x)
        attention_output = self.attention(attention_input)
        x = x + attention_output
        mlp_input = self.mlp_norm(x)
        mlp_output = self.mlp(mlp_input)
        x = x + mlp_output
        return x


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.position_embedding = nn.Embedding(SEQUENCE_LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])
        self.final_norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)

    def forward(self, tokens):  # [B, T] int64 -> [B, T, V]; products are in bfloat16 on a GPU, and so the scores
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            token_embedding = self.token_embedding(tokens)  # [B, T, C]
            positions = torch.arange(tokens.size(1), device=tokens.device)
            position_embedding = self.position_embedding(positions)  # [T, C]
            x = token_embedding + position_embedding
            for block in self.blocks:
                x = block(x)
            final_output = self.final_norm(x)
            scores = self.head(final_output)  # [B, T, V]
            return scores


def split_heads(x):  # [B, T, C] -> [B, H, T, D]
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def merge_heads(x):  # [B, H, T, D] -> [B, T, C]
    return x.transpose(1, 2).flatten(-2)


@torch.no_grad()
def init_weights(model):
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INIT_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for block in model.blocks:  # the sum of all blocks begins as large as that of one (GPT-2)
        for layer in (block.attention.attention_output, block.mlp.contract):
            nn.init.normal_(layer.weight, std=INIT_STD * (2 * DEPTH) ** -0.5)


def build():
    model = Transformer()
    init_weights(model)
    return model
