"""All experiments of arXiv 2605.07271 on a model, and what they say of its claims."""
