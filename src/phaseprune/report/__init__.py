"""What a run found, shown: figures, terminal tables, and the self-contained HTML page."""
