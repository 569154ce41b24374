"""A project's state in one file, so that a campaign and its noise floor continue on another machine.

    tables      which rows travel, in which order, and which stay behind
    packing     rows, repository, floors and as many curves and logs as fit into a zip file
    unpacking   the same rows under new keys; whatever is wrong with the file is one line

A file is read as data: JSON, a git bundle that git checks, and plain bytes named by their hash. What a model wrote in a
project travels as it is, and stays untrusted.
"""

from __future__ import annotations

FORMAT = 1
MANIFEST, ROWS, BUNDLE, CURVES, LOGS = "manifest.json", "rows.json", "repository.bundle", "curves/", "logs/"


class NotMovable(Exception):
    """The project cannot be packed, or the file cannot be unpacked here. One line that says what to do."""
