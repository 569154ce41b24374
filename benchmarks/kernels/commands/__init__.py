"""What `python -m benchmarks.kernels` can do, one command a module.

Each has `HELP`, `arguments(parser)` and `run(options, problems)`, which gives the exit code.
"""
