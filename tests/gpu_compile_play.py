"""Compiles the loss of `modern` with every technique that stacks, as a GPU would: in one graph and in bfloat16.

Prints how many techniques there are and their names. Fails where the compiler breaks the graph, where a product is not
in bfloat16, or where a parameter gets no gradient.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.catalogue import Sources
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu import CATALOGUE
from tests import gpu_technique_play as play


def stacked() -> tuple[Sources, list[str]]:
    """One technique after another, in the order of the catalogue, where none excludes it and its lines are there."""
    tree, names = dict(play.start("modern")), []
    for name, technique in CATALOGUE.items():
        if CATALOGUE.clash(name, names):
            continue
        try:
            tree = CATALOGUE.apply(tree, play.steps_of(technique)[-1:])
        except DoesNotApply:
            continue
        names.append(name)
    return play.small_tables(tree), names


def main() -> None:
    torch.set_num_threads(1)
    sources, names = stacked()
    print(len(names), *names)
    narrow: list[str] = []
    with play.loaded(sources) as modules:
        model = play.built(modules)
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.to(torch.bfloat16)  # as `build` does on a GPU
        modules["tables"].open_tables(model, 4, play.LENGTH)
        tokens, targets = (torch.randint(1, play.VOCABULARY, (4, play.LENGTH)) for _ in range(2))

        def look(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if inputs[0].dtype != torch.bfloat16:
                narrow.append(type(module).__name__)

        hooks = [m.register_forward_pre_hook(look) for m in model.modules() if isinstance(m, nn.Linear)]
        modules["train"].compute_loss(model, tokens, targets)
        for hook in hooks:
            hook.remove()
        assert not narrow, f"not in bfloat16: {narrow}"
        loss = torch.compile(modules["train"].compute_loss, fullgraph=True, dynamic=False, backend="aot_eager")
        loss(model, tokens, targets).backward()
        idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not idle, f"no gradient: {idle}"


if __name__ == "__main__":
    main()
