"""`python tune_main.py --space FILE` is `retina sweep --space FILE`."""

import sys

from retina.__main__ import main

if __name__ == "__main__":
    sys.exit(main("sweep"))
