"""``python -m gradlab``: the same command."""

from gradlab.cli import main

if __name__ == "__main__":
    main()
