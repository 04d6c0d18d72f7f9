"""The rules that a request must meet before it becomes a job."""
