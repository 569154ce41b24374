"""What `python -m benchmarks.kernels` can do beside listing, one command a module.

Each has `HELP`, `arguments(parser)` and `run(options, problems)`, which gives the exit code. None imports torch before
it needs it.
"""

from benchmarks.kernels.commands import anchors, sol

COMMANDS = {"anchors": anchors, "sol": sol}
