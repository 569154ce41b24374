"""Stands for the package `kernels`, whose attention comes over the network: the same call, computed by torch.

Full attention is torch's own kernel. Windows are flex attention where the model is compiled for a GPU, which skips the
blocks of keys outside them, and a mask elsewhere. Shapes: B rows, T positions, H heads, D channels of one.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


class Attention:
    @staticmethod
    def flash_attn_func(q, k, v, causal=True, window_size=(-1, -1), softmax_scale=None):
        """[B, T, H, D] each, k and v of fewer heads where they are shared -> [B, T, H, D].

        Of `window_size` only the first matters: how many positions before its own a query sees, -1 all of them.
        """
        if not causal:
            raise NotImplementedError("only causal attention is offered here")
        length, before = q.size(1), window_size[0]
        shared = k.size(2) != q.size(2)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if before < 0 or before >= length - 1:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=softmax_scale, enable_gqa=shared)
        elif q.is_cuda and torch.compiler.is_compiling():
            mask = block_mask(length, before)
            y = flex_attention(q, k, v, block_mask=mask, scale=softmax_scale, enable_gqa=shared)
        else:
            mask = seen(length, before, q.device)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=softmax_scale, enable_gqa=shared)
        return y.transpose(1, 2)


def seen(length, before, device):  # -> bool [T, T], which keys a query sees
    at = torch.arange(length, device=device)
    distance = at[:, None] - at[None, :]
    return (distance >= 0) & (distance <= before)


def block_mask(length, before):  # -> which blocks of keys a block of queries needs
    def sees(batch, head, query, key):
        return (query >= key) & (query - key <= before)

    return create_block_mask(sees, None, None, length, length, device="cuda")


class Kernel:
    flash_attn_interface = Attention
    flash_attn_func = staticmethod(Attention.flash_attn_func)


def get_kernel(name, *_, **__):
    if "flash" not in name:
        raise SystemExit(f"the kernel {name} comes over the network; only flash attention is offered here")
    return Kernel
