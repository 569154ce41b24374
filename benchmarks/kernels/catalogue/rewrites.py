"""Rewrites of our own problems in torch: the same digits, or better ones, by fewer or cheaper calls.

Each names the lines of the reference that it replaces, so it applies where they still stand.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import edits
from benchmarks.catalogue import Tunables
from benchmarks.kernels.catalogue.template import Template, named
from benchmarks.kernels.formats.workload import Problem

Lines = tuple[tuple[str, str], ...]  # (line of the function, what stands there instead; empty: nothing)


def rewrite(
    name: str, problem: str, title: str, hypothesis: str, lines: Lines, prior_gain: float, source: str = "elementary",
    inside: str = "run",
) -> Template:  # fmt: skip
    apply = _by(lines, inside)
    return Template(name, title, hypothesis, source, named(problem), apply, prior_gain=prior_gain, prior_sd=0.15)


def _by(lines: Lines, inside: str) -> Callable[[str, Problem, Tunables], str]:
    def apply(source: str, problem: Problem, tunables: Tunables) -> str:
        for old, new in lines:
            source = edits.replace(source, old, new, inside=inside)
        return source

    return apply


IN_PLACE = "Steps in place need no new memory and pass fewer bytes through the caches."
LIBRARY = "The library does in one call and one pass what the reference does in several."
FLOAT32_MATMUL = "Without bfloat16 instructions a matmul in float32 is faster, conversions of its operands included."

BOTH = (
    rewrite("library_call", "silu_backward", "SiLU's gradient by the library", LIBRARY, (
        ("gate = torch.sigmoid(x)", ""),
        ("return grad_output * (gate + x * gate * (1 - gate))",
         "return torch.ops.aten.silu_backward(grad_output, x)")), 0.6),
    rewrite("in_place", "silu_backward", "SiLU's gradient, factored and in place", IN_PLACE, (
        ("return grad_output * (gate + x * gate * (1 - gate))",
         "return (1 - gate).mul_(x).add_(1).mul_(gate).mul_(grad_output)"),), 0.35),
    rewrite("in_place", "geglu_tanh", "The gate times the values, in place", IN_PLACE, (
        ('return torch.nn.functional.gelu(gates, approximate="tanh") * values',
         'return torch.nn.functional.gelu(gates, approximate="tanh").mul_(values)'),), 0.05),
    rewrite("in_place", "softcapped_softmax", "The cap, in place", IN_PLACE, (
        ("capped = CAP * torch.tanh(scores.float() / CAP)",
         "capped = scores.float().div_(CAP).tanh_().mul_(CAP)"),), 0.05),
    rewrite("in_place", "rms_norm", "Scaled in place", IN_PLACE, (
        ("return (wide * scale * gain.float()).to(torch.bfloat16)",
         "return wide.mul_(scale).mul_(gain).to(torch.bfloat16)"),), 0.15),
    rewrite("in_place", "add_rms_norm", "Scaled in place", IN_PLACE, (
        ("total = (x.float() + residual.float()).to(torch.bfloat16)", "total = x + residual"),
        ("return (wide * scale * gain.float()).to(torch.bfloat16), total",
         "return wide.mul_(scale).mul_(gain).to(torch.bfloat16), total")), 0.3),
    rewrite("norm_of_rows", "rms_norm", "The root mean square by one reduction", LIBRARY, (
        ("scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)",
         "size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)\n"
         "scale = torch.rsqrt(size.square_().div_(wide.shape[-1]).add_(1e-6))"),), 0.1),
    rewrite("norm_of_rows", "add_rms_norm", "The root mean square by one reduction", LIBRARY, (
        ("scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)",
         "size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)\n"
         "scale = torch.rsqrt(size.square_().div_(wide.shape[-1]).add_(1e-6))"),), 0.1),
    rewrite("in_place", "rms_norm_backward", "Both gradients, in place", IN_PLACE, (
        ("grad_x = (inner - normal * (inner * normal).mean(-1, keepdim=True)) * scale",
         "grad_x = inner.addcmul_(normal, (inner * normal).mean(-1, keepdim=True), value=-1).mul_(scale)"),
        ("return grad_x.to(torch.bfloat16), (grad * normal).sum(0)",
         "return grad_x.to(torch.bfloat16), grad.mul_(normal).sum(0)")), 0.3),
    rewrite("in_place", "cross_entropy", "Logarithms become exponentials in place", IN_PLACE, (
        ("grad = torch.exp(logs)", "grad = logs.exp_()"),), 0.1),
    rewrite("halves_in_place", "rope", "Halves written where they belong",
        "Halves that are computed into the output need neither their concatenation nor a copy in float32.", (
        ("return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(torch.bfloat16)",
         "found, half = torch.empty_like(x), first.shape[-1]\n"
         "found[..., :half] = first * cos - second * sin\n"
         "found[..., half:] = second * cos + first * sin\n"
         "return found"),), 0.1, inside="turned"),
    rewrite("shared_exponentials", "gqa_decode", "Scaled queries, exponentials in place",
        "A query has a length-th of the elements of its scores; their exponentials need no memory of their own.", (
        ("grouped = q.float().view(batch, k.shape[2], -1, width)",
         "grouped = (q.float() * width**-0.5).view(batch, k.shape[2], -1, width)"),
        ("scores = grouped @ k.float().permute(0, 2, 3, 1) * width**-0.5",
         "scores = grouped @ k.float().permute(0, 2, 3, 1)"),
        ("out = torch.exp(scores - lse[..., None]) @ v.float().transpose(1, 2)",
         "out = scores.sub_(lse[..., None]).exp_() @ v.float().transpose(1, 2)")), 0.0),
    rewrite("grouped_attention", "gqa_prefill", "Heads in groups without copies of their keys",
        "Attention that knows of groups reads each key head once; repeating it writes and reads it once a query head.",
        (("group = q.shape[2] // k.shape[2]", ""),
         ("k, v = (each.transpose(1, 2).repeat_interleave(group, dim=1) for each in (k, v))",
          "k, v = k.transpose(1, 2), v.transpose(1, 2)"),
         ("return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)"
          ".transpose(1, 2).contiguous()",
          "found = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)\n"
          "return found.transpose(1, 2).contiguous()")), 0.1, "Ainslie et al. 2023, GQA"),
    rewrite("shifted_sums", "causal_conv1d", "Four shifted products instead of a convolution",
        "With channels side by side each tap is one multiply-add over whole rows, and nothing is transposed or padded.",
        (("before = torch.nn.functional.pad(x.float().transpose(1, 2), (taps - 1, 0))",
          "wide, taps_first = x.float(), weight.float().T.contiguous()"),
         ("mixed = torch.nn.functional.conv1d(before, weight.float()[:, None], bias.float(), groups=channels)",
          "mixed = torch.addcmul(bias.float(), wide, taps_first[-1])\n"
          "for back in range(1, min(taps, x.shape[1])):\n"
          "    mixed[:, back:].addcmul_(wide[:, :-back], taps_first[-1 - back])"),
         ("return torch.nn.functional.silu(mixed).transpose(1, 2).to(torch.bfloat16)",
          "return torch.nn.functional.silu(mixed, inplace=True).to(torch.bfloat16)")), 0.45),
    rewrite("library_call", "embedding_gradient", "The library's own embedding backward", LIBRARY, (
        ("total = torch.zeros(table_rows, grad_output.shape[1], dtype=torch.float32, device=grad_output.device)", ""),
        ("return total.index_add_(0, ids, grad_output.float()).to(torch.bfloat16)",
         "total = torch.ops.aten.embedding_dense_backward(grad_output.float(), ids, table_rows, -1, False)\n"
         "return total.to(torch.bfloat16)")), 0.15),
    rewrite("broadcast_scales", "fp8_block_gemm", "Scales broadcast over views of blocks",
        "Scales that are repeated element by element are written and read as large as the weights themselves.", (
        ("wide = x.float() * x_scale.repeat_interleave(128, dim=1)",
         "wide = x.float()\nwide.view(len(x), -1, 128).mul_(x_scale[..., None])"),
        ("scale = weight_scale.repeat_interleave(128, dim=0).repeat_interleave(128, dim=1)",
         "dense = weight.float()\n"
         "dense.view(len(weight) // 128, 128, -1, 128).mul_(weight_scale[:, None, :, None])"),
        ("return (wide @ (weight.float() * scale).T).to(torch.bfloat16)",
         "return (wide @ dense.T).to(torch.bfloat16)")), 0.05),
    rewrite("unsorted_groups", "moe_gating", "Groups chosen without sorting, masked in place",
        "Only the set of the kept groups matters; nothing needs their order, nor new memory for the mask.", (
        ("of_groups = choice.topk(2, dim=-1).values.sum(-1)",
         "of_groups = choice.topk(2, dim=-1, sorted=False).values.sum(-1)"),
        ("kept = torch.zeros_like(of_groups).scatter(-1, of_groups.topk(KEPT_GROUPS).indices, 1.0)",
         "left = torch.ones_like(of_groups, dtype=torch.bool)\n"
         "left.scatter_(-1, of_groups.topk(KEPT_GROUPS, sorted=False).indices, False)"),
        ('choice = torch.where(kept[..., None] > 0, choice, float("-inf")).flatten(-2)',
         'choice = choice.masked_fill_(left[..., None], float("-inf")).flatten(-2)')), 0.02),
    rewrite("in_place", "wkv_decay", "Exponentials of gaps between logarithms, in place",
        "The gap between two logarithms gives both exponentials without the maximum, and needs no new memory.",
        (("highest = torch.maximum(peak, key + bonus)", "gap = key + bonus - peak"),
         ("past, now = torch.exp(peak - highest), torch.exp(key + bonus - highest)",
          "past, now = torch.exp(-gap.clamp(min=0)), torch.exp(gap.clamp_(max=0))"),
         ("highest = torch.maximum(peak - rate, key)", "faded = peak - rate\nhighest = torch.maximum(faded, key)"),
         ("past, now = torch.exp(peak - rate - highest), torch.exp(key - highest)",
          "past, now = faded.sub_(highest).exp_(), (key - highest).exp_()"),
         ("top, bottom, peak = past * top + now * value, past * bottom + now, highest",
          "top, bottom = torch.addcmul(now * value, past, top), torch.addcmul(now, past, bottom)\n"
          "peak = highest")), -0.05),
)  # fmt: skip

CPU = (
    rewrite("float32_matmul", "gemm_bias_gelu", "Matmul in float32", FLOAT32_MATMUL, (
        ("hidden = torch.nn.functional.linear(x, weight, bias)",
         "hidden = torch.addmm(bias.float(), x.float(), weight.float().T)"),
        ('return torch.nn.functional.gelu(hidden, approximate="tanh")',
         'return torch.nn.functional.gelu(hidden, approximate="tanh").to(torch.bfloat16)')), 0.35),
    rewrite("float32_matmul", "swiglu_gate_up", "Matmuls in float32", FLOAT32_MATMUL, (
        ("gate, up = x @ gate_weight.T, x @ up_weight.T",
         "wide = x.float()\ngate, up = wide @ gate_weight.float().T, wide @ up_weight.float().T"),
        ("return torch.nn.functional.silu(gate) * up",
         "return torch.nn.functional.silu(gate, inplace=True).mul_(up).to(torch.bfloat16)")), 0.5),
    rewrite("float32_matmul", "skinny_gemm", "Matmul in float32", FLOAT32_MATMUL, (
        ("return x @ weight.T", "return (x.float() @ weight.float().T).to(x.dtype)"),), 0.2),
    rewrite("float32_attention", "gqa_prefill", "Attention in float32", FLOAT32_MATMUL, (
        ("q = q.transpose(1, 2)", "q = q.transpose(1, 2).float()"),
        ("k, v = (each.transpose(1, 2).repeat_interleave(group, dim=1) for each in (k, v))",
         "k, v = (each.transpose(1, 2).float().repeat_interleave(group, dim=1) for each in (k, v))"),
        ("return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)"
         ".transpose(1, 2).contiguous()",
         "found = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
         "return found.transpose(1, 2).to(torch.bfloat16).contiguous()")), -0.05),
)  # fmt: skip
