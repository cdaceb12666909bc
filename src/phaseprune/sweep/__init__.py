"""The engine: rows, the walk over the blocks, the layer-synchronous sweep, and what they score."""
