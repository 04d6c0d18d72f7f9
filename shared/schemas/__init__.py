"""Requests, views and reports as both doors spell them (pydantic, one module per noun)."""
