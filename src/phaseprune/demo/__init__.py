"""The bundled model and its held-out questions (made by training/train.py)."""
