"""``python -m sk_asd``: the command line."""

import sys

from sk_asd.cli import main

if __name__ == "__main__":
    sys.exit(main())
