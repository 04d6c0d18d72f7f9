"""The connector for Fides (ethyca/fides)."""
