"""The model: a decoder-only Transformer over tokens, with what small models have learned since GPT-2.

Norms without gains, rotary positions, normalised queries and keys, windows, squared ReLU, tables of values by token, a
way from the embedding into every layer, softcapped scores. Training and scoring share this file: the judge calls
build(), loads the submitted weights with strict=True and calls forward on rows of up to SEQUENCE_LENGTH tokens.

Sources: Su et al. 2021 (RoFormer); Henry et al. 2020 (query-key norm); So et al. 2021 (Primer: squared ReLU); Beltagy
et al. 2020 (Longformer: windows); Gemma 2 (softcap); nanochat and modded-nanogpt (value embeddings, x0 lambdas).
Shapes: B rows, T positions, C width, H heads, D = C / H, V vocabulary.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

VOCAB_SIZE = 8192
SEQUENCE_LENGTH = 2048
DEPTH = 8
WIDTH = 512
HEADS = 4
MLP_WIDTH = 4 * WIDTH
WINDOWS = "SSSL"  # short or long, layer by layer, over and over; the last layer is long
SHORT_WINDOW = SEQUENCE_LENGTH // 8  # positions that a query sees, its own among them
ROPE_BASE = 10_000
VALUE_EVERY = 2  # layers; counted from the last one
GATE_CHANNELS = 32  # of the input, that the gates of the values see
SOFTCAP = 15.0
TOKEN_STD = 1.0
HEAD_STD = 0.001
RESIDUAL_LAMBDA = 1.0
X0_LAMBDA = 0.1


class Linear(nn.Linear):
    """No bias. The weight is kept in float32 and used in the type of the input: bfloat16 on a GPU."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.window = window_of(layer)
        self.query_key_value = Linear(WIDTH, 3 * WIDTH)  # one product: the input is read once, not three times
        self.attention_output = Linear(WIDTH, WIDTH)
        self.has_values = (DEPTH - 1 - layer) % VALUE_EVERY == 0
        if self.has_values:
            self.value_embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
            self.value_gate = Linear(GATE_CHANNELS, HEADS)
        self.register_buffer("angles", rotary_angles(), persistent=False)
        self.block_mask = block_mask(self.window, "cuda") if self.angles.is_cuda else None

    def forward(self, attention_input, tokens):  # [B, T, C] and [B, T] -> [B, T, C]
        qkv = self.query_key_value(attention_input)
        qkv = split_heads(qkv)  # [B, T, 3H, D]
        qk, v = qkv.split((2 * HEADS, HEADS), dim=2)  # queries and keys stay together: one kernel each way
        if self.has_values:
            value_embedding = split_heads(self.value_embedding(tokens))
            value_gate = self.value_gate(attention_input[..., :GATE_CHANNELS])
            value_gate = 2 * torch.sigmoid(value_gate)  # [B, T, H], from 1
            v = v + value_gate.unsqueeze(-1) * value_embedding
        qk = norm(qk)
        qk = rotate(qk, self.angles)
        q, k = qk.chunk(2, dim=2)
        y = attend(q, k, v, self.window, self.block_mask)
        y = merge_heads(y)
        y = self.attention_output(y)
        return y


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.expand = Linear(WIDTH, MLP_WIDTH)
        self.contract = Linear(MLP_WIDTH, WIDTH)

    def forward(self, mlp_input):  # [B, T, C] -> [B, T, C]
        h = self.expand(mlp_input)  # [B, T, 4C]
        h = F.relu(h).square()
        h = self.contract(h)
        return h


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.attention = Attention(layer)
        self.mlp = MLP()

    def forward(self, x, tokens):  # [B, T, C] and [B, T] -> [B, T, C]
        attention_input = norm(x)
        attention_output = self.attention(attention_input, tokens)
        x = x + attention_output
        mlp_input = norm(x)
        mlp_output = self.mlp(mlp_input)
        x = x + mlp_output
        return x


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.blocks = nn.ModuleList([Block(layer) for layer in range(DEPTH)])
        self.residual_lambdas = nn.Parameter(torch.full((DEPTH,), RESIDUAL_LAMBDA))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), X0_LAMBDA))
        self.head = Linear(WIDTH, VOCAB_SIZE)

    def features(self, tokens):  # [B, T] int64 -> [B, T, C], what the head reads
        token_embedding = self.token_embedding(tokens)  # [B, T, C]
        x = norm(token_embedding)
        x0 = x
        for layer, block in enumerate(self.blocks):
            x = self.residual_lambdas[layer] * x + self.x0_lambdas[layer] * x0
            x = block(x, tokens)
        final_output = norm(x)
        return final_output

    def forward(self, tokens):  # [B, T] int64 -> [B, T, V] float32
        final_output = self.features(tokens)
        scores = self.head(final_output)  # [B, T, V]
        scores = softcap(scores)
        return scores


def norm(x):  # root mean square over the last dimension, without a gain
    return F.rms_norm(x, (x.size(-1),))


def softcap(scores):  # any shape -> float32 between -SOFTCAP and SOFTCAP
    return SOFTCAP * torch.tanh(scores.float() / SOFTCAP)


def split_heads(x):  # [B, T, C] -> [B, T, H, D]
    return x.unflatten(-1, (-1, WIDTH // HEADS))


def merge_heads(x):  # [B, T, H, D] -> [B, T, C]
    return x.flatten(-2)


def rotary_angles():  # -> [T, 1, D / 2, 2], cosine and sine
    half = WIDTH // HEADS // 2
    frequency = ROPE_BASE ** -(torch.arange(half) / half)
    angle = torch.outer(torch.arange(SEQUENCE_LENGTH), frequency)  # [T, D / 2]
    return torch.stack((angle.cos(), angle.sin()), dim=-1).unsqueeze(1)


def rotate(x, angles):  # [B, T, H, D] -> the same, each position turned by its angles
    cosine, sine = angles[: x.size(1)].unbind(-1)  # [T, 1, D / 2]
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat((a * cosine - b * sine, a * sine + b * cosine), dim=-1)
    return turned.to(x.dtype)


def window_of(layer):  # -> how many positions a query of this layer sees, its own among them
    is_short = WINDOWS[layer % len(WINDOWS)] == "S" and layer < DEPTH - 1
    return SHORT_WINDOW if is_short else SEQUENCE_LENGTH


def attend(q, k, v, window, mask):  # three of [B, T, H, D] -> [B, T, H, D]
    """Causal attention within a window. Compiled, a short window skips the blocks of keys outside it."""
    length = q.size(1)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, H, T, D]
    if window >= length:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    elif mask is not None and torch.compiler.is_compiling():
        y = flex_attention(q, k, v, block_mask=mask)
    else:
        position = torch.arange(length, device=q.device)
        visible = is_visible(position.unsqueeze(1), position, window)  # [T, T]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    return y.transpose(1, 2)


def is_visible(query, key, window):  # positions -> whether the one may look at the other
    return (key <= query) & (query - key < window)


@lru_cache
def block_mask(window, device):  # -> which blocks of keys a block of queries needs; None where all before it
    if window >= SEQUENCE_LENGTH:
        return None

    def visible(batch, head, query, key):
        return is_visible(query, key, window)

    return create_block_mask(visible, None, None, SEQUENCE_LENGTH, SEQUENCE_LENGTH, device=device)


@torch.no_grad()
def init_weights(model):
    bound = (3 / WIDTH) ** 0.5  # uniform with the standard deviation 1 / sqrt(C)
    nn.init.normal_(model.token_embedding.weight, std=TOKEN_STD)
    nn.init.normal_(model.head.weight, std=HEAD_STD)
    for block in model.blocks:
        nn.init.uniform_(block.attention.query_key_value.weight, -bound, bound)
        nn.init.zeros_(block.attention.attention_output.weight)  # every block begins by adding nothing
        nn.init.uniform_(block.mlp.expand.weight, -bound, bound)
        nn.init.zeros_(block.mlp.contract.weight)
        if block.attention.has_values:
            nn.init.uniform_(block.attention.value_embedding.weight, -bound, bound)
            nn.init.zeros_(block.attention.value_gate.weight)


def build():
    model = Transformer()
    init_weights(model)
    if model.head.weight.is_cuda:  # the type of the tables becomes that of everything computed from them
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.to(torch.bfloat16)
    return model
