"""What lies outside the process: queue, object storage, HTTP, embedded servers."""
