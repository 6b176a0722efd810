"""Pictures that look the same in two splits: a warning, with the pairs listed.

A 64-bit perceptual hash (signs of the low frequencies of a 32 x 32 grey thumbnail) is compared
between splits. Candidates share one of `MAX_DISTANCE + 1` bands of bits, which by the pigeonhole
principle misses no pair within the distance. Pictures of one organ resemble each other, so a pair
is a hint to look at, not a proof.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.fft import dctn

from fairtune_hf.data.declaration import Pictures
from fairtune_hf.naming import shortened

MAX_DISTANCE = 4
THUMBNAIL, LOW = 32, 8
FLAT = 2.0
BATCH = 512
CROWD = 4000


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of rows in different splits whose pictures look the same."""

    pairs: pd.DataFrame = field(
        metadata={"help": "columns row_id, split, other_row_id, other_split, distance"}
    )
    warnings: tuple[str, ...] = field(metadata={"help": "what to tell the user"})


def find_near_duplicates(frame: pd.DataFrame, pictures: Pictures) -> NearDuplicates:
    """Compare the pictures of a table's rows across splits.

    `frame` has row_id, split, source_row and position, the row of `pictures`.
    """
    hashes, usable = _hash_rows(frame["position"].to_numpy(dtype=np.int64), pictures)
    codes = frame["split"].astype("category").cat.codes.to_numpy()
    found, crowded = near_pairs(hashes, codes, usable)
    ids, splits = frame["row_id"].to_numpy(), frame["split"].to_numpy()
    lines = frame["source_row"].to_numpy()
    pairs = pd.DataFrame(
        {
            "row_id": ids[found[:, 0]],
            "split": splits[found[:, 0]],
            "other_row_id": ids[found[:, 1]],
            "other_split": splits[found[:, 1]],
            "distance": found[:, 2],
        }
    )
    told = [
        f"line {lines[a]} ({splits[a]}) and line {lines[b]} ({splits[b]})" for a, b, _ in found[:6]
    ]
    warnings = []
    if len(found):
        warnings.append(
            f"{len(found)} pairs of pictures in different splits look nearly the same: "
            f"{shortened([*told, *[''] * (len(found) - len(told))])}; look at them in "
            "near_duplicates.csv"
        )
    if crowded:
        warnings.append(
            f"{crowded} pictures look alike to the perceptual hash in crowds of more than {CROWD} "
            "and were not compared"
        )
    return NearDuplicates(pairs, tuple(warnings))


def perceptual_hash(
    images: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Return the hash of each of (n, side, side, 3) pictures, and whether it has any contrast."""
    grey = images.mean(axis=3, dtype=np.float32)
    small = _thumbnails(grey)
    low = dctn(small, axes=(1, 2), norm="ortho")[:, :LOW, :LOW].reshape(len(images), -1)
    # The first coefficient is the mean brightness; it says nothing and is left 0.
    signs = low > np.median(low[:, 1:], axis=1, keepdims=True)
    signs[:, 0] = False
    bits = np.packbits(signs, axis=1).view(np.uint64).ravel()
    return bits, small.std(axis=(1, 2)) >= FLAT


def _thumbnails(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Average over blocks to 32 x 32; smaller pictures are repeated first."""
    side = grey.shape[1]
    if side < THUMBNAIL:
        times = -(-THUMBNAIL // side)
        grey = grey.repeat(times, axis=1).repeat(times, axis=2)
        side = grey.shape[1]
    edges = np.linspace(0, side, THUMBNAIL + 1).astype(int)
    widths = np.diff(edges)
    rows = np.add.reduceat(grey, edges[:-1], axis=1) / widths[None, :, None]
    return np.asarray(np.add.reduceat(rows, edges[:-1], axis=2) / widths, dtype=np.float32)


def near_pairs(
    hashes: npt.NDArray[np.uint64],
    splits: npt.NDArray[np.integer],
    usable: npt.NDArray[np.bool_],
    distance: int = MAX_DISTANCE,
) -> tuple[npt.NDArray[np.int64], int]:
    """Return (i, j, distance) of near pairs in different splits, and rows in crowds left out."""
    rows = np.flatnonzero(usable)
    found: dict[tuple[int, int], int] = {}
    crowded: set[int] = set()
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        band = (hashes[rows] >> np.uint64(low)) & mask
        order = np.argsort(band, kind="stable")
        bounds = np.flatnonzero(np.diff(band[order])) + 1
        for group in np.split(rows[order], bounds):
            if len(group) > CROWD:
                crowded.update(group.tolist())
            elif len(group) > 1:
                found.update(_close(group, hashes, splits, distance))
    pairs = [(a, b, d) for (a, b), d in found.items()]
    ordered = sorted(pairs, key=lambda p: (p[2], p[0], p[1]))
    return np.asarray(ordered, dtype=np.int64).reshape(-1, 3), len(crowded)


def _close(
    group: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    splits: npt.NDArray[np.integer],
    distance: int,
) -> dict[tuple[int, int], int]:
    apart = np.bitwise_count(hashes[group][:, None] ^ hashes[group][None, :])
    other = splits[group][:, None] != splits[group][None, :]
    first, second = np.nonzero(np.triu((apart <= distance) & other, k=1))
    pairs = {}
    for a, b in zip(first, second, strict=True):
        left, right = sorted((int(group[a]), int(group[b])))
        pairs[left, right] = int(apart[a, b])
    return pairs


def _hash_rows(
    positions: npt.NDArray[np.int64], pictures: Pictures
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    hashes = np.zeros(len(positions), dtype=np.uint64)
    usable = np.zeros(len(positions), dtype=bool)
    for start in range(0, len(positions), BATCH):
        part = slice(start, start + BATCH)
        hashes[part], usable[part] = perceptual_hash(pictures.rows(positions[part]))
    return hashes, usable
