"""Batches on the device: pixel values, order, augmentation streams; the loader the Trainer uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from fairtune_hf.data import TRANSFORM_PRESETS, ImageTable
from fairtune_hf.training.augmentation import augment, crop_centre
from fairtune_hf.training.dataset import ImageDataset, collate_batch
from fairtune_hf.training.placement import OnDevice, OnHost, free_bytes

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


@pytest.fixture
def table() -> ImageTable:
    generator = np.random.default_rng(0)
    n = 10
    frame = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "label": np.arange(n, dtype=np.int64) % 2,
            "sex": ["F", "M"] * (n // 2),
            "split": "train",
        }
    )
    return ImageTable(
        name="test",
        frame=frame,
        images=generator.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8),
        sensitive="sex",
        groups=("F", "M"),
        label_names=("no", "yes"),
        options={},
        dropped={},
        warnings=(),
        split_hash="0" * 64,
    )


def dataset(table: ImageTable, **settings: object) -> ImageDataset:
    return ImageDataset(table, image_mean=MEAN, image_std=STD, image_size=16, **settings)  # type: ignore[arg-type]


def test_pixel_values_are_scaled_and_normalised(table: ImageTable) -> None:
    batch = dataset(table).__getitems__([3, 0])
    expected = (table.images[[3, 0]] / 255.0 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(
        batch["pixel_values"].numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5
    )
    assert batch["labels"].tolist() == [1, 0]
    assert batch["group"].tolist() == [1, 0]
    assert batch["sensitive"] is batch["group"]  # the older name


def test_one_row_equals_its_place_in_a_batch(table: ImageTable) -> None:
    data = dataset(table)
    row, batch = data[4], data.__getitems__(range(10))
    assert all(torch.equal(row[name], batch[name][4]) for name in batch)
    stacked = collate_batch([data[i] for i in range(10)])
    assert all(torch.equal(stacked[name], batch[name]) for name in batch)


def test_the_loader_fetches_whole_batches_in_order(table: ImageTable) -> None:
    loader = DataLoader(dataset(table), batch_size=4, collate_fn=collate_batch)
    labels = torch.cat([batch["labels"] for batch in loader])
    assert labels.tolist() == table.labels.tolist()


@pytest.mark.parametrize("preset", ["flip", "paper", "medfair"])
def test_augmentation_depends_on_seed_and_epoch_alone(table: ImageTable, preset: str) -> None:
    data = dataset(table, transforms=preset)

    def draw(epoch: int, seed: int) -> torch.Tensor:
        data.set_epoch(epoch, seed=seed)
        return data.__getitems__(range(10))["pixel_values"]

    assert torch.equal(draw(1, 5), draw(1, 5))
    assert not torch.equal(draw(1, 5), draw(2, 5))
    assert not torch.equal(draw(1, 5), draw(1, 6))


def test_flip_gives_the_picture_or_its_mirror() -> None:
    pixels = torch.rand(200, 3, 8, 8)
    flipped = augment(pixels, TRANSFORM_PRESETS["flip"], 8, torch.Generator().manual_seed(0))
    same = (flipped == pixels).flatten(1).all(1)
    mirrored = (flipped == pixels.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 70 < int(mirrored.sum()) < 130


@pytest.mark.parametrize("preset", ["paper", "medfair"])
def test_geometry_stays_inside_the_picture(preset: str) -> None:
    """A picture that is a ramp stays within its range and keeps its mean direction: no padding creeps in."""
    ramp = torch.linspace(0, 1, 64).expand(300, 1, 64, 64).contiguous()
    out = augment(ramp, TRANSFORM_PRESETS[preset], 56, torch.Generator().manual_seed(0))
    assert out.shape == (300, 1, 56, 56)
    assert out.min() >= 0
    assert out.max() <= 1
    slopes = out[:, 0, 28, -1] - out[:, 0, 28, 0]
    assert 90 < int((slopes < 0).sum()) < 210  # about half are mirrored


def test_random_resized_crop_covers_the_asked_share_of_the_area() -> None:
    ramp_x = torch.linspace(0, 1, 256).expand(2000, 1, 256, 256)
    ramp_y = ramp_x.transpose(-1, -2)
    both = torch.cat([ramp_x, ramp_y], 1).contiguous()
    out = augment(both, TRANSFORM_PRESETS["paper"], 32, torch.Generator().manual_seed(0))
    width = (out[:, 0, 0, -1] - out[:, 0, 0, 0]).abs()
    height = (out[:, 1, -1, 0] - out[:, 1, 0, 0]).abs()
    area = width * height
    assert 0.05 < float(area.min()) < 0.12
    assert abs(float(area.mean()) - (0.08 + 1) / 2) < 0.05


def test_crop_centre_takes_the_middle_and_enlarges_small_pictures() -> None:
    pixels = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(crop_centre(pixels, 4), pixels[..., 2:6, 2:6])
    assert crop_centre(pixels, 16).shape == (1, 1, 16, 16)


def host(table: ImageTable, device: str = "cpu", **settings: object) -> ImageDataset:
    """The data set with pictures that do not fit on the device."""
    return dataset(table, **settings).to(device, budget=table.images.nbytes - 1)


@pytest.mark.parametrize("preset", [None, "flip", "paper", "medfair"])
def test_pictures_that_do_not_fit_give_the_same_batches(
    table: ImageTable, preset: str | None
) -> None:
    fits, does_not = dataset(table, transforms=preset).to("cpu"), host(table, transforms=preset)
    assert isinstance(fits.pictures, OnDevice)
    assert isinstance(does_not.pictures, OnHost)
    for rows in ([1, 7, 2], [0], [9, 8, 7, 6, 5], [3, 3]):
        one, other = fits.__getitems__(rows), does_not.__getitems__(rows)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_pictures_mapped_from_a_file_are_not_copied(table: ImageTable, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", table.images)
    mapped = replace(table, images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    data = host(mapped)
    assert isinstance(data.pictures, OnHost)
    assert data.pictures._source.data_ptr() == mapped.images.ctypes.data
    want = dataset(table).__getitems__([4, 1])
    assert torch.equal(data.__getitems__([4, 1])["pixel_values"], want["pixel_values"])


def test_where_pictures_lie_can_be_said(table: ImageTable) -> None:
    assert isinstance(dataset(table, placement="host").to("cpu").pictures, OnHost)
    assert isinstance(dataset(table, placement="device").to("cpu", budget=0).pictures, OnDevice)


def test_moving_to_the_same_device_again_keeps_the_pictures(table: ImageTable) -> None:
    data = dataset(table).to("cpu")
    before = data.pictures
    assert data.to("cpu", budget=0).pictures is before


@pytest.mark.gpu
@pytest.mark.parametrize("preset", [None, "flip", "paper", "medfair"])
def test_batches_of_a_gpu_are_those_of_the_cpu(table: ImageTable, preset: str | None) -> None:
    """The random draws are the CPU's; a resampled pixel differs by rounding alone."""
    reference = dataset(table, transforms=preset).to("cpu")
    served = [dataset(table, transforms=preset).to("cuda"), host(table, "cuda", transforms=preset)]
    for rows in ([1, 7, 2], [0], [9, 8, 7, 6, 5], [3, 3], [2, 4]):
        want = reference.__getitems__(rows)
        for data in served:
            got = data.__getitems__(rows)
            assert got["pixel_values"].is_cuda
            assert torch.equal(got["labels"].cpu(), want["labels"])
            torch.testing.assert_close(
                got["pixel_values"].cpu(), want["pixel_values"], atol=2e-3, rtol=0
            )


@pytest.mark.gpu
def test_memory_that_an_earlier_training_left_is_free_for_pictures(table: ImageTable) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    before = free_bytes(device)
    block = torch.empty(2**30, dtype=torch.uint8, device=device)
    del block  # kept by the allocator, not by anybody else
    assert free_bytes(device) == pytest.approx(before, abs=2**27)
    data = dataset(table).to(device)
    assert isinstance(data.pictures, OnDevice)


@pytest.mark.parametrize("seed", [0, 1])
def test_workers_of_a_loader_draw_each_for_itself_and_anew_in_each_epoch(
    table: ImageTable, seed: int
) -> None:
    same = np.repeat(table.images[:1], len(table), axis=0)
    data = ImageDataset(
        replace(table, images=same), image_mean=MEAN, image_std=STD, image_size=8,
        transforms="paper", seed=seed,
    )  # fmt: skip
    loader = DataLoader(data, batch_size=5, num_workers=2, collate_fn=collate_batch)

    def two_epochs() -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return [batch["pixel_values"] for _ in range(2) for batch in loader]

    batches = two_epochs()
    assert len(batches) == 4  # of each epoch one by each worker
    for i, one in enumerate(batches):
        assert not any(torch.equal(one, other) for other in batches[i + 1 :])
    again = two_epochs()
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
