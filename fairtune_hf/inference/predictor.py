"""Scores of pictures by a trained model, through the very steps that its training and its measurement took.

Threads share the work, since Pillow and PyTorch release the interpreter's lock where the time goes: on a
CPU each decodes and scores batches of its own, beside a GPU all decode while it computes.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.special import softmax
from torch import Tensor, nn

from fairtune_hf.data.appearance import unlike
from fairtune_hf.data.image_source import ImageError, Pixels, noted
from fairtune_hf.inference.pictures import Picture, decode, stored_square
from fairtune_hf.model_description import ModelDescription, OperatingPoint
from fairtune_hf.training.augmentation import crop_centre
from fairtune_hf.training.dataset import fold_normalisation

_AHEAD = 3  # batches that may be decoded before the model has asked for them


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture."""

    score: float = field(metadata={"help": "probability of label 1, in [0, 1]"})
    label: str = field(metadata={"help": "label at the operating point, in the user's words"})
    scores_by_seed: dict[int, float] | None = field(
        default=None, metadata={"help": "score of each refit whose weights are there, if several"}
    )
    warnings: tuple[str, ...] = field(
        default=(), metadata={"help": "in what the picture is unlike the training pictures"}
    )


class Predictor:
    """A trained model with all that belongs to it; see `load_predictor`, which makes one.

    Args:
        model: The classifier with its adapter; `model(pixel_values=...)` gives logits of shape (n, 2).
        described: What belongs to it.
        device: Where it computes.
        batch_size: Pictures that it is given at once.
        others: The models of further refits of the same choice, by seed.
    """

    def __init__(
        self,
        model: nn.Module,
        described: ModelDescription,
        *,
        device: torch.device,
        batch_size: int = 64,
        others: dict[int, nn.Module] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}.")
        self.model: Any = model.to(device).eval()
        self.others = {seed: other.to(device).eval() for seed, other in (others or {}).items()}
        self.described, self.device, self.batch_size = described, device, batch_size
        given = described.input
        self.image_size = given.image_size
        self.image_mean, self.image_std = tuple(given.image_mean), tuple(given.image_std)
        self.id2label = {int(code): name for code, name in described.id2label.items()}
        self.groups = described.groups
        self._scale, self._shift = fold_normalisation(self.image_mean, self.image_std)

    @property
    def operating_point(self) -> OperatingPoint | None:
        """From which score on the label is 1, and where that was chosen; None where it is not known."""
        return self.described.operating_point

    @property
    def threshold(self) -> float:
        """The operating point's threshold, one half where there is none."""
        point = self.operating_point
        return 0.5 if point is None else point.threshold

    def merged_model(self) -> Any:
        """Return a copy of the model without PEFT, the adapter's values in place of the base's."""
        twin = copy.deepcopy(self.model)
        return twin.merge_and_unload().eval()

    def prepare(self, picture: Picture) -> Tensor:
        """Decode one picture to what the model takes, as training did.

        Args:
            picture: A path, the bytes of a file, an image of Pillow or an array; see `decode`.

        Returns:
            (3, image_size, image_size) float32, on the CPU.

        Raises:
            ValueError: It cannot be read as one picture.
        """
        try:
            pixels = self.decode(picture)
        except ImageError as error:
            raise ValueError(f"picture: {_name_of(picture)} {error}.") from error
        return self.normalise(torch.from_numpy(pixels.copy())[None])[0]

    def decode(self, picture: Picture) -> Pixels:
        """Return the square uint8 pixels, (side, side, 3), that training would have stored of a picture.

        Raises:
            ImageError: It cannot be read as one picture.
        """
        given = self.described.input
        return stored_square(decode(picture, given.depth16), given)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn stored pixels, (n, side, side, 3) uint8, into what the model takes, (n, 3, size, size), where they lie."""
        values = pixels.permute(0, 3, 1, 2).contiguous().float()
        cropped = crop_centre(values, self.image_size)
        return cropped * self._scale.to(pixels.device) + self._shift.to(pixels.device)

    def __call__(self, pictures: Picture | Iterable[Picture]) -> list[Prediction]:
        """Score pictures, in their order.

        Args:
            pictures: Paths, bytes, PIL images or arrays, in any mixture; or one of them.

        Raises:
            ValueError: A picture cannot be read; the message says which. `each` goes on without it.
        """
        given: list[Any] = [pictures] if _is_one(pictures) else list(pictures)  # type: ignore[arg-type]
        found = []
        for place, told in enumerate(self.each(given)):
            if isinstance(told, ImageError):
                name = _name_of(given[place])
                raise ValueError(f"pictures[{place}]: {name} {told}.") from told
            found.append(told)
        return found

    def each(
        self, pictures: Iterable[Picture], *, workers: int | None = None
    ) -> Iterator[Prediction | ImageError]:
        """Score pictures as they come, and give for each its prediction, or why it cannot be read.

        Args:
            pictures: Paths, bytes, PIL images or arrays; taken a few batches ahead.
            workers: Threads; by default one for each core that this process may use.
        """
        count = workers or usable_cores()
        if self.device.type == "cpu":
            yield from self._each_by_batches(pictures, count)
            return
        with _pool(count) as pool:
            decoded = _in_order(pool, self._look, pictures, _AHEAD * self.batch_size)
            for batch in _batches(decoded, self.batch_size):
                yield from self._score(batch)

    def _each_by_batches(
        self, pictures: Iterable[Picture], workers: int
    ) -> Iterator[Prediction | ImageError]:
        """Let each thread decode and score batches of its own; of a single batch only the decoding is shared out.

        A model that spread itself over the cores would wait, spinning, for those that decode.
        """
        batches = _batches(pictures, self.batch_size)
        begun = list(itertools.islice(batches, 2))
        with _pool(workers) as pool:
            if len(begun) < 2:
                for batch in begun:
                    yield from self._score(list(pool.map(self._look, batch)))
                return
            with _one_thread_each():
                every = itertools.chain(begun, batches)
                for found in _in_order(pool, self._look_and_score, every, 2 * workers):
                    yield from found

    def _look_and_score(self, batch: Sequence[Picture]) -> list[Prediction | ImageError]:
        return list(self._score([self._look(picture) for picture in batch]))

    def _look(self, picture: Picture) -> _Seen | ImageError:
        given = self.described.input
        try:
            with noted() as told:
                image = decode(picture, given.depth16)
        except ImageError as error:
            return error
        return _Seen(stored_square(image, given), image.size, tuple(told))

    def _score(self, batch: Sequence[_Seen | ImageError]) -> Iterator[Prediction | ImageError]:
        read = [item for item in batch if isinstance(item, _Seen)]
        rows = self._predict(read) if read else iter(())
        for item in batch:
            yield item if isinstance(item, ImageError) else next(rows)

    def _predict(self, read: Sequence[_Seen]) -> Iterator[Prediction]:
        """Give the prediction of each decoded picture: by the refit that was measured, and by all where there are several."""
        pixels = np.stack([item.pixels for item in read])
        scores = self.score_pixels(pixels)
        noticed = unlike(self.described.pictures, [item.size for item in read], pixels)
        if not all(np.isfinite(values).all() for values in scores.values()):
            raise FloatingPointError(
                "Scores are not numbers: the weights of the model or its base are damaged, or overflow on this device."
            )
        own = next(iter(scores.values()))
        for row, item in enumerate(read):
            by_seed = {seed: float(values[row]) for seed, values in scores.items()}
            score = float(own[row])
            label = self.id2label[int(score >= self.threshold)]
            several = by_seed if len(by_seed) > 1 else None
            yield Prediction(score, label, several, (*item.notes, *noticed[row]))

    @torch.inference_mode()
    def score_pixels(self, pixels: np.ndarray) -> dict[int, np.ndarray]:
        """Score stored pixels, (n, side, side, 3) uint8: the probability of label 1, (n,) float64, by seed."""
        values = self.normalise(torch.from_numpy(pixels).to(self.device))
        models = {self.described.seed or 0: self.model, **self.others}
        return {
            seed: _probability(model(pixel_values=values).logits) for seed, model in models.items()
        }


@dataclass(frozen=True)
class _Seen:
    """A decoded picture: its stored square, its own size upright, and what its reader noted."""

    pixels: Pixels
    size: tuple[int, int]
    notes: tuple[str, ...]


def _probability(logits: Tensor) -> np.ndarray:
    # In double precision on the host, as the run's own scores were made.
    values = logits.float().cpu().numpy().astype(np.float64)
    return np.asarray(softmax(values, axis=1)[:, 1])


def usable_cores() -> int:
    """Return how many cores this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_one(pictures: object) -> bool:
    return isinstance(
        pictures, str | PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray
    )


def _name_of(picture: object) -> str:
    return str(picture) if isinstance(picture, str | PathLike) else f"the {type(picture).__name__}"


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], most: int
) -> Iterator[Any]:
    """Give what `work` makes of each item, in their order; at most so many are in work or wait."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let PyTorch use one core for each thread that calls it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        yield pool
    finally:  # who asks for no more, or is interrupted, does not wait for what was decoded ahead
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
