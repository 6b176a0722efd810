"""`fairtune finetune` as a script for `accelerate launch recipes/finetune.py`."""

import sys

from fairtune_hf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
