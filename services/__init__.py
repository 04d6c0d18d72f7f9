"""What the product decides: use cases that both doors call.

Each takes a session, does one thing and leaves the commit to its caller.
"""
