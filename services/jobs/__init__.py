"""The life of a job, from submission to its end."""
