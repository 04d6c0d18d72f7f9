"""What is deleted when, and the receipts for it."""
