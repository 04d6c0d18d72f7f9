"""Files as people send them: archives, layouts of datasets, checkpoints."""
