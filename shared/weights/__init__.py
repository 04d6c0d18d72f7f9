"""Weights of CLIPs by the names and shapes of their tensors, in every layout that people have;
no torch.
"""
