"""Data subject requests by other protocols: OpenDSR and Fides."""
