"""Signed statements of a verdict: issuing, keys, verification."""
