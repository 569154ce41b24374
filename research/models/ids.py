"""Public ids: short, random, safe in a URL and in the name of a git ref."""

import secrets

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


def new_id() -> str:
    """Ten characters of 31: 49 bits, so that ids neither collide nor tell how many there are."""
    return "".join(secrets.choice(ALPHABET) for _ in range(10))
