"""Techniques of scoring: what a model does with a row while it is scored, after its training."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import SUBMIT, WARM_UP, model_parts, with_file

SCORES = "scores = softcap(scores)"


def online_head(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.after(
        sources["model.py"], SCORES, """
        scores = scores + correction(final_output, scores, tokens, self.online)
        """, "Transformer.forward",
    )  # fmt: skip
    model = edits.new_import(model, "from online_head import KERNELS, correction")
    model = model_parts(
        model, 'self.register_buffer("online", torch.zeros(KERNELS))  # rates, fitted behind the training'
    )
    train = edits.new_import(sources["train.py"], "from online_head import FITTED_ON, fit_online")
    noise = """
        some_noise = torch.randint(harness.vocab_size, (FITTED_ON * ROW_LENGTH,)).to(torch.int16).view(torch.uint16)
        fit_online(model, some_noise, ROW_LENGTH)  # loads what it runs
    """
    train = edits.after(train, WARM_UP, noise, "main")
    train = edits.before(train, SUBMIT, "fit_online(model, tokens, ROW_LENGTH)", "main")
    train = edits.constant(train, "HAND_OVER_SECONDS", tunables["seconds"])
    return with_file(sources | {"model.py": model, "train.py": train}, "online_head.py")


TECHNIQUES = (
    Technique(
        name="online_head",
        title="a head that learns within a row while it is scored",
        family="evaluation",
        hypothesis="Names and turns of a row come again in it; a head that takes a step at each position before gives "
        "them more than so small a network does, and costs no training.",
        source="Krause et al. 2018, Dynamic Evaluation of Neural Sequence Models; Grave et al. 2017, Improving Neural "
        "Language Models with a Continuous Cache",
        apply=online_head,
        tunables=(Tunable("seconds", 0.8, choices=(0.6, 0.8, 1.2)),),
        prior_gain=0.003,
        prior_sd=0.004,
    ),
)
