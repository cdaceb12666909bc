"""Run directories: manifest, fingerprints, resume, atomic writes."""
