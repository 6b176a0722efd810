"""`fairtune evaluate` as a script for `accelerate launch recipes/evaluate.py`."""

import sys

from fairtune_hf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
