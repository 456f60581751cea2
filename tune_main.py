"""`python tune_main.py --space FILE` is `retina sweep --space FILE`."""

import sys

from retina.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
