"""Checkpoint -> bundle: what the runtime loads."""
