"""Search masks: `accelerate launch recipes/search.py --config recipes/demo/search.yaml`."""

import sys

from fairtune_hf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
