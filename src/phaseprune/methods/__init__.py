"""Ways to choose blocks: the registry, rankings, searches, and what a search looks at."""
