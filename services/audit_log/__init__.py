"""The append-only log of what was done: entries, their hash chain, its signed heads."""
