"""All that touches Hugging Face internals: load, discover, run blocks, read out, export."""
