"""Techniques that change how fast the steps are, not what they compute (but for rounding)."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import MLP, constant_of, with_file, without, without_definition


def inductor_search(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        from torch._inductor import config  # slow to import, and of no use on a CPU

        config.coordinate_descent_tuning = True  # looks for better launches of each kernel
        config.max_autotune_pointwise = True
    """
    return sources | {"train.py": edits.before(sources["train.py"], "loss_function = torch.compile(...", lines, "main")}


def tf32(sources: Sources, tunables: Tunables) -> Sources:
    line = 'torch.set_float32_matmul_precision("high")  # products of float32 weights in TF32'
    return sources | {"train.py": edits.before(sources["train.py"], "torch.manual_seed(...", line, "main")}


def fused_cross_entropy(sources: Sources, tunables: Tunables) -> Sources:
    train = edits.swap(
        sources["train.py"], "HeadLoss.apply(x, model.head.weight, targets)",
        "linear_softcap_cross_entropy(x, model.head.weight.to(x.dtype), targets, SOFTCAP, chunk_rows=CHUNK_ROWS)",
        "compute_loss",
    )  # fmt: skip
    for name in ("HeadLoss", "capped_cross_entropy"):
        train = without_definition(train, name)
    if "math." not in train and edits.has(train, "import math"):
        train = without(train, "import math", "")
    train = edits.replace(train, "LOSS_ROWS = ...", f"CHUNK_ROWS = {tunables['rows']}  # scores in memory at a time")
    train = edits.new_import(train, "from softcap_cross_entropy import linear_softcap_cross_entropy")
    return with_file(sources, "softcap_cross_entropy.py") | {"train.py": train}


def fused_relu_squared(sources: Sources, tunables: Tunables) -> Sources:
    model = sources["model.py"]
    line = "h = relu_squared_mlp(mlp_input, self.expand.weight.to(x), self.contract.weight.to(x))"
    line = line.replace("(x)", "(mlp_input.dtype)")
    model = edits.replace(model, "h = self.expand(mlp_input)...", line, MLP)
    for gone in ("h = F.relu(h).square()", "h = self.contract(h)"):
        model = without(model, gone, MLP)
    model = edits.new_import(model, "from relu_squared import relu_squared_mlp")
    return with_file(sources, "relu_squared.py") | {"model.py": model}


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
        tunables=(Tunable("rows", 128, choices=(16, 32, 64, 128, 256)),),
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
    Technique(
        name="fused_cross_entropy",
        title="scores read once by a kernel for cap and loss",
        family="speed",
        hypothesis="One kernel that caps the scores, sums them and leaves their gradient in their place reads and "
        "writes them once; what inductor makes of it does so more often.",
        source="Hsu et al. 2024, Liger Kernel; modded-nanogpt records 60 and 79 (fused softcap and cross-entropy)",
        apply=fused_cross_entropy,
        tunables=(Tunable("rows", 2**14, choices=(2**13, 2**14, 2**15)),),
        prior_gain=0.004,
        prior_sd=0.005,
        excludes=("loss_rows", "z_loss", "token_after_next"),
    ),
    Technique(
        name="fused_relu_squared",
        title="squared ReLU inside the products around it",
        family="speed",
        hypothesis="A product that squares before it writes saves two passes over the widest activations, and four "
        "on the way back.",
        source="modded-nanogpt records 59 and 87 (fused linear and squared ReLU); So et al. 2021, Primer",
        apply=fused_relu_squared,
        prior_gain=0.004,
        prior_sd=0.006,
        excludes=("swiglu", "shifted_relu", "hidden_shift"),
    ),
)
