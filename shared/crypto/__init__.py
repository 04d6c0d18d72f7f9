"""Signatures and encryption: keys, envelopes, sealed archives."""
