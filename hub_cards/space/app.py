"""A Space that scores one picture at a time with a model that `fairtune push` sent; see README.md."""

import os

from fairtune_hf.serve import serve_model

MODEL = os.environ.get("FAIRTUNE_MODEL", "ORG/NAME")

if __name__ == "__main__":
    # A Space's own address is 0.0.0.0, port 7860; who may open it is a setting of the Space.
    serve_model(
        MODEL,
        host=os.environ.get("FAIRTUNE_HOST", "0.0.0.0"),
        port=int(os.environ.get("FAIRTUNE_PORT", "7860")),
        max_upload_mb=20,
    )
