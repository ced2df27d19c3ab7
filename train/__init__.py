"""Training: configuration, device, precision, loop, checkpoints."""
