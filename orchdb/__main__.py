"""``python -m orchdb``: the same as ``orchdb``."""

from orchdb.cli import main

if __name__ == "__main__":
    main()
