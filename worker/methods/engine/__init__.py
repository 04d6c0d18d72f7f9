"""What all methods share: encoders, adapters, prepared data, prompts, margins, calibration."""
