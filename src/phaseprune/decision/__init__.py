"""Decision Margin, Option Frequency, transition, collapse: pure NumPy that knows no model."""
