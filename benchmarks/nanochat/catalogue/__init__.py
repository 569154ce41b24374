"""Techniques of the nanochat benchmark, a folder a lane."""
