"""Experiments on a model that leave it whole: noise, ablations."""
