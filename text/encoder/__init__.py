"""Trains the text encoder: tokens, network, objectives, three stages, checkpoints (torch)."""
