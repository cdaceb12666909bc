"""Experiments on a model: noise, ablations, how alike it and pruned ones are."""
