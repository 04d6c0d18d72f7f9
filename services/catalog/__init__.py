"""What a tenant has uploaded or registered: models and datasets."""
