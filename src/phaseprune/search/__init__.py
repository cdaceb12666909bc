"""Pruning: which blocks to remove, one at a time, and when to stop."""
