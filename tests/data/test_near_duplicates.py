from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from PIL import Image

from fairtune_hf.data import prepare
from fairtune_hf.data.near_duplicates import near_pairs, perceptual_hash


def smooth(seed, side=64):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def test_pairs_are_those_of_every_comparison():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    turned = base.copy()
    for i in range(40):
        for bit in rng.permutation(64)[: i % 8]:
            turned[i] ^= np.uint64(1) << np.uint64(bit)
    hashes = np.concatenate([base, turned])
    splits = np.repeat([0, 1], 40)
    splits[5] = 1
    found, crowded = near_pairs(hashes, splits, np.ones(80, dtype=bool), 4)
    expected = {
        (a, b): int(np.bitwise_count(hashes[a] ^ hashes[b]))
        for a, b in itertools.combinations(range(80), 2)
        if splits[a] != splits[b] and np.bitwise_count(hashes[a] ^ hashes[b]) <= 4
    }
    assert {(a, b): d for a, b, d in found.tolist()} == expected
    assert len(expected) == 25
    assert crowded == 0


def test_hash_survives_compression_and_scale_and_tells_pictures_apart():
    drawn = [smooth(i) for i in range(30)]
    hashes, usable = perceptual_hash(np.stack([np.asarray(d) for d in drawn]))
    small = [d.resize((40, 40), Image.Resampling.BILINEAR).resize((64, 64)) for d in drawn]
    again, _ = perceptual_hash(np.stack([np.asarray(s) for s in small]))
    assert usable.all()
    assert np.bitwise_count(hashes ^ again).max() <= 4
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])[np.triu_indices(30, 1)]
    assert apart.min() > 8
    _, flat = perceptual_hash(np.full((2, 16, 16, 3), 9, np.uint8))
    assert not flat.any()


def test_prepare_warns_and_lists_pairs(make_folder, columns, table_of, tmp_path):
    source = table_of()
    number = source["person"].str[1:].astype(int)
    source["part"] = number.map(lambda n: "train" if n < 40 else "val" if n < 50 else "test")
    root = make_folder(source)
    for i, name in enumerate(source["file_name"]):
        smooth(i).save(root / name)
    train, test = source["file_name"][4], source["file_name"][110]
    # The same lesion, brighter: other bytes, the same look.
    brighter = Image.open(root / train).point(lambda v: min(255, v + 6))
    brighter.save(root / test)
    columns["split_column"] = "part"
    summary = prepare("folder", root, out=tmp_path / "out", image_size=48, **columns)
    assert any("1 pairs of pictures in different splits look nearly" in w for w in summary.warnings)
    pairs = pd.read_csv(tmp_path / "out" / "near_duplicates.csv")
    assert pairs[["row_id", "other_row_id"]].to_numpy().tolist() == [[train, test]]
    quiet = prepare(
        "folder", root, out=tmp_path / "quiet", image_size=48, near_duplicates=False, **columns
    )
    assert not any("look nearly" in w for w in quiet.warnings)
