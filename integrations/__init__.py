"""What other products need to speak with the service."""
