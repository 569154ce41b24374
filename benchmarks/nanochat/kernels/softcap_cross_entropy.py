"""Softcap and cross entropy over the vocabulary, with gradients, and no float32 scores in memory.

`linear_softcap_cross_entropy` takes the hidden vectors and the head's weight; `softcap_cross_entropy` takes scores that
somebody else made. Stands alone: imports torch, and triton where it is there.

Why a matmul of cuBLAS and one kernel, rather than one kernel for both: with N = 131,072 rows, C = 512 and V = 8,192
each of the three matmuls (scores, gradient of hidden, gradient of weight) is 2 N C V = 1.1 Tflop, 1.5 ms at 750
Tflop/s, and one pass over the bfloat16 scores is 2.1 GB, 0.7 ms at 3 TB/s. A kernel that keeps the scores on chip
spares a pass to write and one to read them, but the gradients need them again, as a fourth matmul: a loss at this C. So
the scores are made in chunks of rows, and a kernel reads each once, caps it, sums the exponentials and writes the
gradient of the score where the score stood: it reads and writes once what eager torch does more than ten times, most of
it in float32.

The capped score is softcap * tanh(z / divisor) (Gemma Team 2024, "Gemma 2", section 2: 30 for both; the modded-nanogpt
records 18 and 54: 15, and different numbers for the two). The gradient made in the forward pass, in place, is the idea
of Hsu et al. 2024, "Liger Kernel", section 3.2.

Shapes: N rows, C width, V vocabulary. Losses are nats.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU may go without, and takes the naive ways
    triton = None

SOFTCAP = 15.0
CHUNK_ROWS = 16_384  # scores in memory at once: 268 MB at V = 8,192 in bfloat16
LARGEST_VOCABULARY = 65_536  # a row must fit into the registers of one program
LARGEST_BOUND = 30.0  # exp(-2 * 30) is far above the smallest float32
_LIBRARY = __name__.replace(".", "_")  # copies of this file in one process define operators of their own


def naive_softcap_cross_entropy(
    scores: Tensor, targets: Tensor, softcap: float = SOFTCAP, divisor: float | None = None
) -> Tensor:
    """Mean loss in nats, float32 (float64 of float64), as one writes it first.

    scores [N, V] of any float type, targets int64 [N]; a negative target leaves its row out, and 0 is the loss of no
    rows at all. softcap 0 leaves the scores uncapped; divisor is the softcap where it is not given.
    """
    exact = scores.double() if scores.dtype == torch.float64 else scores.float()
    if softcap:
        exact = softcap * torch.tanh(exact / (divisor or softcap))
    kept = targets >= 0
    losses = torch.logsumexp(exact, dim=1) - exact.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)


def naive_linear_softcap_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float = SOFTCAP, divisor: float | None = None
) -> Tensor:
    """Mean loss of the scores hidden @ weight.T: hidden [N, C], weight [V, C], targets int64 [N].

    The weight is used in the type of hidden and may be kept in another one.
    """
    return naive_softcap_cross_entropy(hidden @ weight.to(hidden.dtype).T, targets, softcap, divisor)


def softcap_cross_entropy(
    scores: Tensor, targets: Tensor, softcap: float = SOFTCAP, divisor: float | None = None
) -> Tensor:
    """As the naive one: scores [N, V], targets int64 [N] -> mean loss, float32. Three passes over the scores.

    Keeps the scores for the backward pass as they came and makes their gradient in their type.
    """
    if not _fast(scores):
        return naive_softcap_cross_entropy(scores, targets, softcap, divisor)
    loss, _ = _scores_loss(scores, targets, softcap, divisor or softcap or 1.0)
    return loss


def linear_softcap_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    softcap: float = SOFTCAP,
    divisor: float | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Tensor:
    """As the naive one, without all scores in memory: hidden [N, C], weight [V, C], targets [N] -> mean loss, float32.

    The scores of a chunk are of the type of hidden, and so is its part of the gradient of the weight; the parts are
    added in float32. The gradients are made with the loss where any is wanted, and the backward pass only scales them.
    """
    if not _fast(hidden) or weight.size(0) > LARGEST_VOCABULARY:
        return naive_linear_softcap_cross_entropy(hidden, weight, targets, softcap, divisor)
    divisor = divisor or softcap or 1.0
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        loss, _, _ = _linear_loss(hidden, weight, targets, softcap, divisor, chunk_rows)
        return loss
    return _linear_loss_only(hidden, weight, targets, softcap, divisor, chunk_rows)


def _jit(kernel):
    return triton.jit(kernel) if triton else kernel


@_jit
def _cap(z, softcap, divisor, CAPPED: tl.constexpr):
    """The capped scores. tanh from one exponential: exact to 1e-7, and the interpreter knows it."""
    if CAPPED:
        doubled = tl.minimum(z * (2 / divisor), 80.0, propagate_nan=tl.PropagateNan.ALL)  # where tanh is 1 long since
        z = softcap * (1 - 2 / (1 + tl.exp(doubled)))
    return z


@_jit
def _gradient(capped, logsum, is_target, weight, softcap, divisor, CAPPED: tl.constexpr):
    """The gradient of the scores. The exponential again, from the capped score: so one number a score is kept."""
    gradient = (tl.exp(capped - logsum) - tl.where(is_target, 1.0, 0.0)) * weight
    if CAPPED:
        gradient *= softcap / divisor - capped * capped * (1 / (softcap * divisor))
    return gradient


@_jit
def _loss_kernel(
    scores, targets, losses, logsums, scale, row_stride, vocabulary, softcap, divisor,
    CAPPED: tl.constexpr, BOUNDED: tl.constexpr, IN_PLACE: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row a program: its loss and logsumexp; IN_PLACE, its gradient times scale[0] instead of its scores.

    BOUNDED: the softcap bounds the scores so well that it stands for the highest, which is not looked for. EVEN: the
    vocabulary fills the block.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    places = scores + row * row_stride + columns
    target = tl.load(targets + row)
    z = tl.load(places) if EVEN else tl.load(places, mask=columns < vocabulary, other=0.0)
    capped = _cap(z.to(tl.float32), softcap, divisor, CAPPED)
    counted = capped if EVEN else tl.where(columns < vocabulary, capped, float("-inf"))
    highest = softcap if BOUNDED else tl.max(counted, 0)
    logsum = highest + tl.log(tl.sum(tl.exp(counted - highest), 0))
    is_target = columns == target
    of_target = tl.sum(tl.where(is_target, capped, 0.0), 0)
    tl.store(losses + row, tl.where(target >= 0, logsum - of_target, 0.0))
    tl.store(logsums + row, logsum)
    if IN_PLACE:
        weight = tl.where(target >= 0, tl.load(scale), 0.0)
        gradient = _gradient(capped, logsum, is_target, weight, softcap, divisor, CAPPED).to(scores.dtype.element_ty)
        if EVEN:
            tl.store(places, gradient)
        else:
            tl.store(places, gradient, mask=columns < vocabulary)


@_jit
def _gradient_kernel(
    scores, targets, logsums, scale, gradients, row_stride, vocabulary, softcap, divisor,
    CAPPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one row a program: the gradient of the scores, times scale[0]. gradients is contiguous."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < vocabulary
    target = tl.load(targets + row)
    z = tl.load(scores + row * row_stride + columns, mask=inside, other=0.0).to(tl.float32)
    capped = _cap(z, softcap, divisor, CAPPED)
    weight = tl.where(target >= 0, tl.load(scale), 0.0)
    gradient = _gradient(capped, tl.load(logsums + row), columns == target, weight, softcap, divisor, CAPPED)
    tl.store(gradients + row * vocabulary + columns, gradient.to(gradients.dtype.element_ty), mask=inside)


INTERPRETED = triton is not None and not isinstance(_loss_kernel, triton.JITFunction)
# TRITON_INTERPRET=1 plays the kernels on a CPU.
_DEVICES = () if triton is None else ("cuda", "cpu") if INTERPRETED else ("cuda",)


def _fast(tensor: Tensor) -> bool:
    return tensor.device.type in _DEVICES and tensor.dtype != torch.float64 and tensor.size(-1) <= LARGEST_VOCABULARY


def _warps(vocabulary: int) -> int:
    return min(32, max(4, triton.next_power_of_2(vocabulary) // 512))  # 16 scores a thread


def _share_of_a_row(targets: Tensor) -> Tensor:
    """1 / the number of rows that count, float32 [1], without asking the device for it."""
    return (targets >= 0).sum(dtype=torch.float32).clamp(min=1).reciprocal().view(1)


def _losses(
    scores: Tensor, targets: Tensor, share: Tensor, softcap: float, divisor: float, in_place: bool
) -> tuple[Tensor, Tensor]:
    """Loss and logsumexp of each row, float32 [N] both; in place, the scores become their gradient."""
    rows, vocabulary = scores.shape
    block = triton.next_power_of_2(vocabulary)
    losses = torch.empty(rows, device=scores.device, dtype=torch.float32)
    logsums = torch.empty_like(losses)
    if rows:
        _loss_kernel[(rows,)](
            scores, targets, losses, logsums, share, scores.stride(0), vocabulary, softcap, divisor,
            CAPPED=softcap != 0, BOUNDED=0 < softcap <= LARGEST_BOUND, IN_PLACE=in_place,
            EVEN=vocabulary == block, BLOCK=block, num_warps=_warps(vocabulary),
        )  # fmt: skip
    return losses, logsums


@torch.library.custom_op(f"{_LIBRARY}::scores_loss", mutates_args=())
def _scores_loss(scores: Tensor, targets: Tensor, softcap: float, divisor: float) -> tuple[Tensor, Tensor]:
    """Mean loss, float32 [], and logsumexp of each row, float32 [N]."""
    share = _share_of_a_row(targets)
    losses, logsums = _losses(scores.contiguous(), targets.contiguous(), share, softcap, divisor, in_place=False)
    return losses.sum() * share[0], logsums


@_scores_loss.register_fake
def _(scores, targets, softcap, divisor):
    return scores.new_empty((), dtype=torch.float32), scores.new_empty(scores.size(0), dtype=torch.float32)


@torch.library.custom_op(f"{_LIBRARY}::scores_gradient", mutates_args=())
def _scores_gradient(
    scores: Tensor, targets: Tensor, logsums: Tensor, of_loss: Tensor, softcap: float, divisor: float
) -> Tensor:
    """Gradient of the scores, [N, V] in their type; of_loss, float32 [], is the gradient of the mean loss."""
    scores, targets = scores.contiguous(), targets.contiguous()
    rows, vocabulary = scores.shape
    gradients = torch.empty_like(scores)
    block = min(4096, triton.next_power_of_2(vocabulary))
    if rows:
        _gradient_kernel[(rows, triton.cdiv(vocabulary, block))](
            scores, targets, logsums, of_loss * _share_of_a_row(targets), gradients,
            scores.stride(0), vocabulary, softcap, divisor, CAPPED=softcap != 0, BLOCK=block, num_warps=4,
        )  # fmt: skip
    return gradients


@_scores_gradient.register_fake
def _(scores, targets, logsums, of_loss, softcap, divisor):
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


def _keep_scores(ctx, inputs, output):
    scores, targets, ctx.softcap, ctx.divisor = inputs
    ctx.save_for_backward(scores, targets, output[1])
    ctx.mark_non_differentiable(output[1])


def _scores_backward(ctx, of_loss, _):
    scores, targets, logsums = ctx.saved_tensors
    gradient = _scores_gradient(scores, targets, logsums, of_loss, ctx.softcap, ctx.divisor)
    return gradient, None, None, None


_scores_loss.register_autograd(_scores_backward, setup_context=_keep_scores)


@torch.library.custom_op(f"{_LIBRARY}::linear_loss", mutates_args=())
def _linear_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, divisor: float, chunk_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss, float32 [], and its gradients: of hidden [N, C], of weight [V, C]."""
    hidden, targets, share = hidden.contiguous(), targets.contiguous(), _share_of_a_row(targets)
    head = weight.to(hidden.dtype)
    of_hidden = torch.empty_like(hidden)
    # Each chunk's part is rounded once, by the matmul, and added in float32.
    of_weight = torch.zeros_like(weight, dtype=torch.float32, memory_format=torch.contiguous_format)
    total = torch.zeros((), device=hidden.device)
    chunks = list(zip(hidden.split(chunk_rows), targets.split(chunk_rows), of_hidden.split(chunk_rows), strict=True))
    buffer = hidden.new_empty(min(chunk_rows, hidden.size(0)), weight.size(0))
    for rows, of_rows, gradient in chunks:
        scores = torch.mm(rows, head.T, out=buffer[: rows.size(0)])
        losses, _ = _losses(scores, of_rows, share, softcap, divisor, in_place=True)
        total += losses.sum()
        torch.mm(scores, head, out=gradient)
        if len(chunks) == 1:
            of_weight = torch.mm(scores.T, rows)
        else:
            of_weight += torch.mm(scores.T, rows)
    return total * share[0], of_hidden, of_weight.to(weight.dtype)


@_linear_loss.register_fake
def _(hidden, weight, targets, softcap, divisor, chunk_rows):
    plain = torch.contiguous_format
    loss = hidden.new_empty((), dtype=torch.float32)
    return loss, torch.empty_like(hidden, memory_format=plain), torch.empty_like(weight, memory_format=plain)


def _keep_gradients(ctx, inputs, output):
    ctx.save_for_backward(output[1], output[2])
    ctx.mark_non_differentiable(output[1], output[2])


def _linear_backward(ctx, of_loss, _of_hidden, _of_weight):
    of_hidden, of_weight = ctx.saved_tensors
    return of_hidden * of_loss.to(of_hidden.dtype), of_weight * of_loss.to(of_weight.dtype), None, None, None, None


_linear_loss.register_autograd(_linear_backward, setup_context=_keep_gradients)


@torch.library.custom_op(f"{_LIBRARY}::linear_loss_only", mutates_args=())
def _linear_loss_only(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, divisor: float, chunk_rows: int
) -> Tensor:
    """Mean loss, float32 []: no gradients, one pass over the scores less."""
    targets, share = targets.contiguous(), _share_of_a_row(targets)
    head = weight.to(hidden.dtype)
    total = torch.zeros((), device=hidden.device)
    for rows, of_rows in zip(hidden.split(chunk_rows), targets.split(chunk_rows), strict=True):
        losses, _ = _losses(torch.mm(rows, head.T), of_rows, share, softcap, divisor, in_place=False)
        total += losses.sum()
    return total * share[0]


@_linear_loss_only.register_fake
def _(hidden, weight, targets, softcap, divisor, chunk_rows):
    return hidden.new_empty((), dtype=torch.float32)
