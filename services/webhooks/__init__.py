"""Endpoints of tenants, and the deliveries that they are owed."""
