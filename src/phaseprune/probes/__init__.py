"""Experiments on a model: how alike it and pruned ones are."""
