"""Images on the training device, handed out a batch at a time.

The uint8 pictures of a split are moved to the device once if they fit there (see `placement`); a batch
is one gather, the augmentation and the normalisation, all there. The DataLoader fetches whole batches through `__getitems__`, so the
Hugging Face Trainer and Accelerate shard, shuffle and gather it as they do any map-style dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from fairtune_hf.data import TRANSFORM_PRESETS, ImageTable, TransformPreset
from fairtune_hf.training.augmentation import augment, crop_centre
from fairtune_hf.training.placement import Pictures, Placement, place


class ImageDataset(Dataset[dict[str, Tensor]]):
    """One split as model inputs: `pixel_values`, `labels` and the group code as `group`.

    Args:
        table: The rows to serve; pass `table.subset("train")` for one split.
        image_mean: Mean per channel on the [0, 1] scale.
        image_std: Standard deviation per channel on the [0, 1] scale.
        image_size: Side of the model's input in pixels.
        transforms: A preset or its name for training rows; None serves the centre crop (evaluation).
        seed: Seed of the augmentation; with the epoch it fixes every random draw.
        placement: Where the pictures lie: on the device, on the host, or wherever they fit.
    """

    def __init__(
        self,
        table: ImageTable,
        *,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        image_size: int,
        transforms: TransformPreset | str | None = None,
        seed: int = 0,
        placement: Placement = "auto",
    ) -> None:
        self._array, self._placement = table.images, placement
        self.pictures: Pictures | None = None
        self.labels = torch.tensor(table.labels)
        self.group = torch.tensor(table.group_codes)
        self.groups = table.groups
        self.image_size = image_size
        # How often each row of a batch is served, augmented anew; a method may want 2.
        self.views = 1
        self._scale, self._shift = fold_normalisation(image_mean, image_std)
        self._preset = TRANSFORM_PRESETS[transforms] if isinstance(transforms, str) else transforms
        self._seed = seed
        self._generator = torch.Generator()
        self._worker_seed: int | None = None
        self.set_epoch(0)

    def to(self, device: torch.device | str, *, budget: int | None = None) -> ImageDataset:
        """Serve batches on a device from now on, and return self.

        Args:
            device: Where.
            budget: Bytes of the device that the pictures may take; see `placement.place`.
        """
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if self.pictures is None or self.pictures.device != device:
            self.pictures = place(self._array, device, self._placement, budget)
        for name in ("labels", "group", "_scale", "_shift"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def set_epoch(self, epoch: int, *, seed: int | None = None) -> None:
        """Restart the augmentation's random stream for an epoch, the same in every run with this seed."""
        self._seed = self._seed if seed is None else seed
        self._generator.manual_seed(1_000_003 * self._seed + epoch)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        if self.pictures is None:
            self.to("cpu")
        assert self.pictures is not None  # for the type checker
        chosen = torch.as_tensor(indices, dtype=torch.long).repeat(self.views)
        pixels = self.pictures.take(chosen).float()
        rows = chosen.to(self.labels.device, non_blocking=True)
        group = self.group[rows]
        if self._preset is None:
            pixels = crop_centre(pixels, self.image_size)
        else:
            self._leave_copies()
            pixels = augment(pixels, self._preset, self.image_size, self._generator)
        return {
            "pixel_values": pixels * self._scale + self._shift,
            "labels": self.labels[rows],
            "group": group,
            # What `TrainingArguments(label_names=["labels", "sensitive"])` of older scripts asks for.
            "sensitive": group,
        }

    def _leave_copies(self) -> None:
        """Give each worker of a DataLoader a random stream of its own, anew in each epoch.

        A worker holds a copy of the dataset, and with it of the generator: without this, all workers draw alike,
        and alike in every epoch. Their seeds come from torch's random state, so `set_seed` fixes them.
        """
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker_seed:
            self._worker_seed = worker.seed
            mixed = 1_000_003 * self._generator.initial_seed() + worker.seed
            self._generator.manual_seed(mixed % 2**63)


def fold_normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return factor and summand, each (1, c, 1, 1), that turn values 0..255 into what a model takes."""
    scale = 1.0 / (255.0 * torch.tensor(std))
    shift = -torch.tensor(mean) / torch.tensor(std)
    return scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1)


def collate_batch(features: Any) -> dict[str, Tensor]:
    """Pass a batch from `ImageDataset.__getitems__` on; stack rows that were fetched one by one."""
    if isinstance(features, dict):
        return features
    return {name: torch.stack([row[name] for row in features]) for name in features[0]}
