"""Augmentation of a batch on the device it lies on, one random draw per picture.

Implements the declarations of `fairtune_hf.data.transforms`. Geometry is resampled bilinearly in one
pass (`grid_sample`), so a picture is interpolated once whatever the preset asks for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from fairtune_hf.data import TransformPreset


def crop_centre(pixels: Tensor, size: int) -> Tensor:
    """Cut the central `size` x `size` square out of `(n, c, s, s)`; resize first where it is smaller."""
    side = pixels.shape[-1]
    if side < size:
        return functional.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    start = (side - size) // 2
    return pixels[..., start : start + size, start : start + size]


def augment(
    pixels: Tensor, preset: TransformPreset, size: int, generator: torch.Generator
) -> Tensor:
    """Apply a preset to a batch.

    Args:
        pixels: `(n, c, s, s)` float values, any range.
        preset: What to apply.
        size: Side of the result in pixels.
        generator: Source of every random draw; on the CPU.

    Returns:
        `(n, c, size, size)`, same range as the input.
    """
    if not _is_geometric(preset):
        pixels = crop_centre(pixels, size)
        if preset.horizontal_flip == 0:
            return pixels
        flipped = _uniform(len(pixels), generator) < preset.horizontal_flip
        flipped = flipped.to(pixels.device, non_blocking=True)
        return torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
    affine = _draw_affine(len(pixels), pixels.shape[-1], preset, size, generator)
    affine = affine.to(pixels.device, non_blocking=True)[..., None, None]
    # Written out: a product of matrices would round the places as coarsely as TF32 does.
    steps = (2 * torch.arange(size, device=pixels.device) + 1) / size - 1
    grid = affine[:, :, 0] * steps + affine[:, :, 1] * steps[:, None] + affine[:, :, 2]
    return functional.grid_sample(
        pixels,
        grid.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def _is_geometric(preset: TransformPreset) -> bool:
    """Whether a preset does more than mirror: what it does is then one affine map of each picture."""
    return (
        preset.random_resized_crop_scale is not None
        or preset.rotation_degrees > 0
        or preset.random_crop
    )


def _draw_affine(
    n: int, side: int, preset: TransformPreset, size: int, generator: torch.Generator
) -> Tensor:
    """Draw a geometric preset's map of each picture, from output to input coordinates, both in [-1, 1].

    Args:
        n: Number of pictures.
        side: Side of the stored pictures in pixels.
        preset: What to apply.
        size: Side of the result in pixels.
        generator: Source of every random draw; on the CPU, so that a seed gives the same maps for any device.

    Returns:
        `(n, 2, 3)`, on the CPU.
    """
    if preset.random_resized_crop_scale is not None:
        half_width, half_height = _crop_halves(n, preset, generator)
    else:
        half_width = half_height = torch.full((n,), min(1.0, size / side))
    spread = 0.0 if preset.random_resized_crop_scale is None and not preset.random_crop else 1.0
    x = spread * (2 * _uniform(n, generator) - 1) * (1 - half_width)
    y = spread * (2 * _uniform(n, generator) - 1) * (1 - half_height)
    angle = (2 * _uniform(n, generator) - 1) * math.radians(preset.rotation_degrees)
    mirror = torch.where(_uniform(n, generator) < preset.horizontal_flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return torch.stack(
        [
            torch.stack([mirror * half_width * cosine, -half_height * sine, x], 1),
            torch.stack([mirror * half_width * sine, half_height * cosine, y], 1),
        ],
        1,
    )


def _crop_halves(
    n: int, preset: TransformPreset, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Half width and height of a random crop: area uniform, aspect ratio log-uniform, clipped to the picture."""
    assert preset.random_resized_crop_scale is not None  # for the type checker; the caller looked
    low, high = preset.random_resized_crop_scale
    area = low + (high - low) * _uniform(n, generator)
    ratio_low, ratio_high = (math.log(r) for r in preset.random_resized_crop_ratio)
    ratio = torch.exp(ratio_low + (ratio_high - ratio_low) * _uniform(n, generator))
    return (area * ratio).sqrt().clamp(max=1.0), (area / ratio).sqrt().clamp(max=1.0)


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator)
