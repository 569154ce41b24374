"""The tree of the kernels benchmark over whatever problems a test has prepared."""

from benchmarks.kernels.trees import problems, spread, start_files

__all__ = ["problems", "spread", "start_files"]
