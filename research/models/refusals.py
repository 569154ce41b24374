"""Refusals: what a person asked for and cannot have. The text is one line for them, with what to do.

NotMergeable     stale, decided already, bound to another commit, nothing to measure again ...
 └ NotAllowed    the person's role, or their part in the search, forbids it
"""

from __future__ import annotations


class NotMergeable(Exception):
    """An act of review that cannot be."""


class NotAllowed(NotMergeable):
    """Somebody else may do this."""
