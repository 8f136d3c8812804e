"""``python -m edgemamba``."""

from edgemamba.cli.main import main

if __name__ == "__main__":
    main()
