"""The toy's training. ALPHA and GAMMA stand side by side, so git cannot merge changes of both."""

ALPHA = 1.0
GAMMA = 1.0


def train() -> None:
    """Nothing is trained: the score is read off the constants."""


BETA = 1.0
