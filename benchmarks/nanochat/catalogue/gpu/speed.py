"""Techniques that change how fast the steps are, not what they compute (but for rounding)."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import constant_of


def inductor_search(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        torch._inductor.config.coordinate_descent_tuning = True  # looks for better launches of each kernel
        torch._inductor.config.epilogue_fusion = True
        torch._inductor.config.max_autotune_pointwise = True
    """
    train = edits.before(sources["train.py"], "loss_function = compute_loss", lines, "main")
    return sources | {"train.py": edits.new_import(train, "import torch._inductor.config")}


def tf32(sources: Sources, tunables: Tunables) -> Sources:
    line = 'torch.set_float32_matmul_precision("high")  # products of float32 weights in TF32'
    return sources | {"train.py": edits.before(sources["train.py"], "torch.manual_seed(...", line, "main")}


TECHNIQUES = (
    Technique(
        name="compile_mode",
        title="products tuned when compiled",
        family="speed",
        hypothesis="Kernels picked by trial for these very shapes make steps faster, and compiling is not timed.",
        source="PyTorch documentation, torch.compile (max-autotune); parzival-gauntlet (without CUDA graphs)",
        apply=constant_of("train.py", COMPILE_MODE="mode"),
        tunables=(Tunable("mode", "max-autotune-no-cudagraphs", choices=("max-autotune-no-cudagraphs",)),),
        prior_gain=0.002,
        prior_sd=0.004,
    ),
    Technique(
        name="inductor_search",
        title="launches of kernels searched for",
        family="speed",
        hypothesis="Inductor's first guess of block sizes is not the best; a search before the clock starts finds one.",
        source="modded-nanogpt, medium track (coordinate descent tuning)",
        apply=inductor_search,
        prior_gain=0.001,
        prior_sd=0.003,
    ),
    Technique(
        name="tf32",
        title="float32 products in TF32",
        family="speed",
        hypothesis="The few products in float32 need no 23 bits.",
        source="PyTorch documentation, torch.set_float32_matmul_precision",
        apply=tf32,
        prior_gain=0.0,
        prior_sd=0.002,
    ),
    Technique(
        name="device_rows",
        title="another number of rows a pass",
        family="speed",
        hypothesis="Passes of fewer rows fit the cache better, passes of more are launched less often.",
        source="PyTorch performance tuning guide",
        apply=constant_of("train.py", DEVICE_ROWS="rows"),
        tunables=(Tunable("rows", 64, choices=(16, 32, 64, 128)),),
        prior_gain=0.0,
        prior_sd=0.003,
        excludes=("batch_tokens", "batch_schedule"),
    ),
    Technique(
        name="loss_rows",
        title="another number of scores at a time",
        family="speed",
        hypothesis="Parts of the scores that stay in the cache from one kernel to the next are read at its speed.",
        source="Hsu et al. 2024, Liger Kernel: Efficient Triton Kernels for LLM Training (chunked cross-entropy)",
        apply=constant_of("train.py", LOSS_ROWS="rows"),
        tunables=(Tunable("rows", 2**14, choices=(2**12, 2**13, 2**14, 2**16)),),
        prior_gain=0.0,
        prior_sd=0.002,
    ),
    Technique(
        name="hand_over",
        title="less time kept for handing over",
        family="speed",
        hypothesis="Handing in the weights takes less than half a second, so there is time for more steps.",
        source="Karpathy 2026, autoresearch: the whole budget is for steps",
        apply=constant_of("train.py", HAND_OVER_SECONDS="seconds"),
        tunables=(Tunable("seconds", 0.25, choices=(0.15, 0.25, 0.35)),),
        prior_gain=0.0005,
        prior_sd=0.001,
    ),
    Technique(
        name="fewer_logs",
        title="fewer points in the log",
        family="speed",
        hypothesis="Reading a loss only every ten steps buys steps.",
        source="PyTorch performance tuning guide: avoid needless synchronisation",
        apply=constant_of("train.py", LOG_EVERY="steps"),
        tunables=(Tunable("steps", 10, choices=(5, 10, 20)),),
        prior_gain=0.0,
        prior_sd=0.001,
    ),
)
