"""One file per claim that the README makes."""
