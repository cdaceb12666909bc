"""Pruning runs: the steps, when they stop, and what they come to."""
