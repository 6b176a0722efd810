"""Compare methods: `python recipes/compare.py --config recipes/demo/compare.yaml`."""

import sys

from fairtune_hf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
