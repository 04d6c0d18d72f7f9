"""The queue door and everything that needs torch."""
