"""Real Chromium against a real daphne on the database of the running test."""
