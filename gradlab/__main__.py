"""``python -m gradlab``: the same command, under the same name in its manifest."""

import sys

from gradlab.cli import main

if __name__ == "__main__":
    sys.argv[0] = "gradlab"
    main()
