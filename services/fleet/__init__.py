"""Workers and relays: which of them live, and what the service owes."""
