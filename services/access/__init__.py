"""Who may call, how often, and how much: keys, tokens, quotas, repeated requests."""
