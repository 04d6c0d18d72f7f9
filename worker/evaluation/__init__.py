"""How forgetting is measured, one file per measure."""
