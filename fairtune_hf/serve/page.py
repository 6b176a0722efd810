"""The page itself, in Gradio: one place for a file, one for the answer, and what was measured."""

from __future__ import annotations

from typing import Any

from fairtune_hf.data.image_source import ImageError
from fairtune_hf.inference import Predictor
from fairtune_hf.serve import words
from fairtune_hf.serve.uploads import Upload, Uploads

_WAITING = 32


def build_page(predictor: Predictor, uploads: Uploads) -> Any:
    """Build the page of a model, a `gradio.Blocks`.

    No example, no history, no state of a session: nothing of one visitor is there for another to see.
    """
    import gradio

    most = f"{uploads.limit / 1_000_000:g} MB"

    def show(upload: Upload | None) -> tuple[str, None]:
        return ("" if upload is None else answer(upload, predictor)), None

    title = f"fairtune: {predictor.id2label[1]}"
    with gradio.Blocks(analytics_enabled=False, title=title) as page:
        gradio.HTML(words.heading(predictor))
        file = gradio.File(
            label=f"One picture: JPEG, PNG, TIFF, DICOM and others, of at most {most}",
            height=160,
        )
        _give_from_memory(file, uploads)
        found = gradio.HTML(elem_id="answer")
        gradio.HTML(words.measured(predictor))
        file.upload(show, file, [found, file], api_visibility="private")
    page.queue(api_open=False, max_size=_WAITING, default_concurrency_limit=1)
    return page


def answer(upload: Upload, predictor: Predictor) -> str:
    """Return the answer to one upload as HTML, a refusal where it is not one picture."""
    if upload.refusal:
        return words.refusal(upload.refusal)
    found = next(iter(predictor.each([upload.content])))
    if isinstance(found, ImageError):
        return words.refusal(f"{upload.name} {found}.")
    return words.answer(upload, found, predictor)


def _give_from_memory(file: Any, uploads: Uploads) -> None:
    """Let Gradio's field for a file give an upload by its token, once, and open or fetch nothing.

    The one field is changed, not a class derived: Gradio writes a file beside the module of each that is.
    """

    async def keep(url_or_file_path: Any) -> str:
        """Leave the token alone; Gradio would fetch an address that a visitor sends in its place."""
        return str(url_or_file_path)

    def take(payload: Any) -> Upload | None:
        if payload is None:
            return None
        gone = Upload("", refusal="That picture is not here any more. Choose it again.")
        return uploads.take(payload.path) or gone

    file.async_move_resource_to_block_cache, file.preprocess = keep, take
