"""The brush of the demo set: arrays of lesion parameters in, uint8 pictures out.

Numpy alone. `fairtune_hf.data.demo` decides who the patients are and documents the numbers; this
module holds what a lesion looks like. All lengths are fractions of half the picture's side, so a
set drawn at 128 px shows the same lesions as at 64 px (with its own grain).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIGN_STRENGTH = 1.9
"""Distance between the class means of each sign, in its own standard deviations."""

LOW_HARMONIC = 3
BORDER_HARMONICS = (4, 5, 6, 7, 8)
HAIRS = 3
CHUNK = 100

LIGHT_SKIN = np.array([0.88, 0.70, 0.60], np.float32)
DARK_SKIN = np.array([0.46, 0.32, 0.25], np.float32)
# How strongly full pigment absorbs red, green, blue; and the axis from blue-grey to reddish along
# which the colours of a lesion vary, so that several colours leave its mean colour as it was.
PIGMENT = np.array([0.62, 0.80, 0.82], np.float32)
TINT = np.array([0.24, -0.12, -0.26], np.float32)


@dataclass(frozen=True)
class Lesions:
    """One lesion a row: everything a picture shows but its grain.

    Attributes:
        skin: (n, 3) colour of the skin around the lesion, in [0, 1].
        wrinkles: (n,) strength of the skin's coarse texture.
        centre: (n, 2) place of the lesion.
        radius: (n,) mean radius.
        stretch: (n, 2) axis ratio and its direction, an innocent ellipse.
        contrast: (n,) absorption of the lesion against its skin.
        softness: (n,) width of the border's fade.
        asymmetry: (n,) in (0, 1), the first sign.
        border: (n,) in (0, 1), the second sign.
        colour: (n,) in (0, 1), the third sign, several tints in one lesion.
        phases: (n, border harmonics + 2) angles of the outline's waves and the pigment's drift.
        weights: (n, border harmonics) shares of the outline's waves, norm one.
        hairs: (n, HAIRS, 3) direction, offset, darkness of each hair.
        light: (n, 3) overall gain, and its slope across and down the picture.
    """

    skin: Floats
    wrinkles: Floats
    centre: Floats
    radius: Floats
    stretch: Floats
    contrast: Floats
    softness: Floats
    asymmetry: Floats
    border: Floats
    colour: Floats
    phases: Floats
    weights: Floats
    hairs: Floats
    light: Floats

    def take(self, rows: slice) -> Lesions:
        """Return the lesions of `rows`."""
        return Lesions(**{name: value[rows] for name, value in vars(self).items()})


def sample_lesions(
    malignant: npt.NDArray[np.int64],
    melanin: Floats,
    wrinkles: Floats,
    contrast_factor: Floats,
    rng: np.random.Generator,
) -> Lesions:
    """Draw the parameters of one lesion for each row.

    Only the three signs depend on `malignant`; each is a logistic function of a unit normal whose
    mean is `SIGN_STRENGTH` higher for a malignant lesion, so the classes overlap in every sign.

    Args:
        malignant: (n,) 0 or 1.
        melanin: (n,) in [0, 1], 0 the lightest skin.
        wrinkles: (n,) strength of the skin's texture.
        contrast_factor: (n,) multiplies the contrast of the lesion, 1 for full contrast.
        rng: Source of every draw.
    """
    n = len(malignant)

    def uniform(low: float, high: float, *shape: int) -> Floats:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    def sign() -> Floats:
        level = rng.standard_normal(n) + SIGN_STRENGTH * (malignant - 0.5)
        return (1.0 / (1.0 + np.exp(-1.3 * level))).astype(np.float32)

    skin = LIGHT_SKIN + melanin[:, None] * (DARK_SKIN - LIGHT_SKIN) + uniform(-0.03, 0.03, 3)
    weights = np.abs(rng.standard_normal((n, len(BORDER_HARMONICS)))).astype(np.float32) + 0.1
    hairs = np.stack(
        [uniform(0, np.pi, HAIRS), uniform(-1.6, 1.6, HAIRS), uniform(-0.2, 0.2, HAIRS)], axis=-1
    )
    light = np.concatenate([uniform(0.9, 1.08, 1), uniform(-0.1, 0.1, 2)], axis=1)
    return Lesions(
        skin=skin.astype(np.float32),
        wrinkles=wrinkles,
        centre=uniform(-0.22, 0.22, 2),
        radius=uniform(0.40, 0.62),
        stretch=np.stack([uniform(0.0, 0.28), uniform(0, np.pi)], axis=1),
        contrast=uniform(0.45, 0.85) * contrast_factor,
        softness=uniform(0.03, 0.10),
        asymmetry=sign(),
        border=sign(),
        colour=sign(),
        phases=uniform(0, 2 * np.pi, len(BORDER_HARMONICS) + 2),
        weights=weights / np.linalg.norm(weights, axis=1, keepdims=True),
        hairs=hairs,
        light=light,
    )


def render(lesions: Lesions, image_size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Paint the lesions; shape (n, image_size, image_size, 3).

    Args:
        lesions: What to paint.
        image_size: Side of the square pictures, in pixels.
        rng: Source of the skin's texture, the pigment's pattern and the grain.
    """
    n = len(lesions.radius)
    pictures = np.empty((n, image_size, image_size, 3), np.uint8)
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        pictures[rows] = _render_chunk(lesions.take(rows), image_size, rng)
    return pictures


def _render_chunk(part: Lesions, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    axis = (2.0 * (np.arange(size, dtype=np.float32) + 0.5) / size - 1.0).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    n = len(part.radius)
    inside, drift = _outline(part, x, y)
    pattern = _smooth_noise(n, 7, size, rng)
    tint = _smooth_noise(n, 6, size, rng)
    # The pigment's drift to one side and the spread of its tints grow with two of the signs; its
    # patches are innocent.
    pigment = 1.0 + _col(0.90 * part.asymmetry) * drift + np.float32(0.25) * pattern
    absorbed = inside * _col(part.contrast) * np.clip(pigment, 0.15, 1.8)
    tinted = inside * _col(part.contrast * part.colour) * tint

    texture = _smooth_noise(n, 13, size, rng) * _col(part.wrinkles)
    light = _col(part.light[:, 0]) + _col(part.light[:, 1]) * x + _col(part.light[:, 2]) * y
    shade = (light + texture) * (1.0 - _hair(part, x, y))
    grain = rng.standard_normal((n, size, size), dtype=np.float32)
    picture = np.empty((n, size, size, 3), np.float32)
    for c in range(3):
        value = 1.0 - PIGMENT[c] * absorbed + TINT[c] * tinted
        picture[..., c] = _col(part.skin[:, c]) * shade * value + (0.022 + 0.004 * c) * grain
    return (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _outline(part: Lesions, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """How far inside the lesion each pixel lies, in [0, 1], and the pigment's drift in [-1, 1]."""
    dx, dy = x - _col(part.centre[:, 0]), y - _col(part.centre[:, 1])
    distance = np.sqrt(dx * dx + dy * dy) + np.float32(1e-4)
    cos, sin = dx / distance, dy / distance
    cos2, sin2 = cos * cos - sin * sin, 2.0 * cos * sin
    direction = 2.0 * part.stretch[:, 1]
    wave = _col(part.stretch[:, 0] * np.cos(direction)) * cos2
    wave += _col(part.stretch[:, 0] * np.sin(direction)) * sin2
    amplitude = {LOW_HARMONIC: 0.24 * part.asymmetry}
    for j, harmonic in enumerate(BORDER_HARMONICS):
        amplitude[harmonic] = 0.24 * part.border * part.weights[:, j]
    cos_k, sin_k = cos2, sin2
    for harmonic in range(3, max(BORDER_HARMONICS) + 1):
        cos_k, sin_k = cos_k * cos - sin_k * sin, sin_k * cos + cos_k * sin
        if harmonic in amplitude:
            phase = part.phases[:, list(amplitude).index(harmonic)]
            wave += _col(amplitude[harmonic] * np.cos(phase)) * cos_k
            wave += _col(amplitude[harmonic] * np.sin(phase)) * sin_k
    edge = _col(part.radius) * (1.0 + wave)
    inside = 1.0 / (1.0 + np.exp(np.clip((distance - edge) / _col(0.5 * part.softness), -30, 30)))
    heading = part.phases[:, -1]
    along = _col(np.cos(heading)) * dx + _col(np.sin(heading)) * dy
    return inside, np.clip(along / _col(part.radius), -1.0, 1.0)


def _hair(part: Lesions, x: Floats, y: Floats) -> Floats:
    """Share of the light that hairs take away; a hair of negative darkness is not there."""
    shade = np.zeros(1, np.float32)
    for j in range(HAIRS):
        angle, offset, darkness = (part.hairs[:, j, i] for i in range(3))
        gap = _col(np.cos(angle)) * x + _col(np.sin(angle)) * y - _col(offset)
        shade = shade + _col(np.maximum(darkness, 0.0)) * np.maximum(1.0 - np.abs(gap) * 28.0, 0.0)
    return np.minimum(shade, 0.6)


def _smooth_noise(n: int, knots: int, size: int, rng: np.random.Generator) -> Floats:
    """(n, size, size) noise of about unit variance at the knots, interpolated between them."""
    place = np.linspace(0.0, knots - 1.0, size, dtype=np.float32)
    weight = np.maximum(1.0 - np.abs(place[:, None] - np.arange(knots, dtype=np.float32)), 0.0)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    field = rng.standard_normal((n, knots, knots), dtype=np.float32)
    return np.asarray(weight @ field @ weight.T, np.float32)


def _col(values: Floats) -> Floats:
    return np.asarray(values, np.float32)[:, None, None]
