"""The toy's model."""

DELTA = 1.0
