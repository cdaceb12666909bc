"""``python -m phaseprune``."""

from phaseprune.cli.main import main

if __name__ == "__main__":
    main()
