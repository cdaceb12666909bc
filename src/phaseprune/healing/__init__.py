"""Fine-tuning after pruning, and how much of it comes back at which depth."""
