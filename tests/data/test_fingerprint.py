"""Digests of rows and pictures against other ways to the same values, and what they say of a change."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data.fingerprint import (
    Fingerprint,
    digest_text,
    keyed,
    name_changes,
    new_key,
    number_range,
    real_ids,
)
from fairtune_hf.data.pixels import digest_file, digest_pictures


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 written from its definition (Aumasson and Bernstein, 2012)."""
    mask = (1 << 64) - 1
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [
        k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573,
    ]  # fmt: skip

    def turn(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = turn(v[1], 13) ^ v[0]
            v[0] = turn(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = turn(v[1], 17) ^ v[2]
            v[2] = turn(v[2], 32)

    whole = len(data) // 8 * 8
    last = data[whole:] + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for start in range(0, whole + 8, 8):
        word = int.from_bytes((data[:whole] + last)[start : start + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def spread(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014), which pandas puts behind it."""
    mask = (1 << 64) - 1
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    return value ^ value >> 31


def test_ids_are_kept_under_the_published_keyed_hash():
    # Its authors' first test vector: key 00..0f, message 00..0e.
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    key = "0123456789abcdef"
    ids = ["p0", "images/a picture.png", "", "Ångström 12", "x" * 100]
    found = keyed(pd.Series(ids), key)
    assert found.tolist() == [spread(siphash(key.encode(), i.encode())) for i in ids]
    assert len(new_key()) == 16
    assert new_key() != new_key()


def test_text_is_told_apart_where_its_joints_are():
    assert digest_text(pd.Series(["ab", "c"])) != digest_text(pd.Series(["a", "bc"]))
    assert digest_text(pd.Series(["a", "b"])) != digest_text(pd.Series(["b", "a"]))
    assert digest_text(pd.Series(["1", "2"])) == digest_text(pd.Series([1, 2]))


def test_a_picture_has_one_digest_in_memory_and_in_a_file(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 5, 5, 3), dtype=np.uint8)
    (tmp_path / "p").write_bytes(b"head" + pictures.tobytes())
    np.testing.assert_array_equal(
        digest_pictures(pictures), digest_file(tmp_path / "p", 4, 7, 5 * 5 * 3)
    )
    changed = pictures.copy()
    changed[3, 0, 0, 0] ^= 1
    same = (digest_pictures(pictures) == digest_pictures(changed)).all(axis=1)
    assert same.tolist() == [True] * 3 + [False] + [True] * 3
    assert digest_file(tmp_path / "p", 4, 0, 75).shape == (0, 16)


def a_table() -> Fingerprint:
    frame = pd.DataFrame(
        {
            "row_id": list("abcdef"),
            "patient_id": list("ppqqrr"),
            "label": [0, 1, 0, 1, 0, 1],
            "sex": list("FMFMFM"),
            "split": ["train"] * 4 + ["test"] * 2,
        }
    )
    pictures = np.random.default_rng(0).integers(0, 256, (6, 16), dtype=np.uint8)
    return Fingerprint(frame, pictures)


CHANGES = {
    "the labels of 1 row changed": lambda f: f.assign(label=[1, 1, 0, 1, 0, 1]),
    "the patients of 2 rows changed": lambda f: f.assign(patient_id=list("ppssrr")),
    "the groups of 'sex' of 3 rows changed": lambda f: f.assign(sex=list("MFMMFM")),
    "the splits of 2 rows changed": lambda f: f.assign(split="train"),
    "2 rows gone": lambda f: f.iloc[2:],
    "the same rows in another order": lambda f: f.iloc[::-1],
    "6 other rows in place of the 6": lambda f: f.assign(row_id=list("uvwxyz")),
    "other attributes (groups of 'age')": lambda f: f.assign(age="old"),
}


@pytest.mark.parametrize("words", CHANGES)
def test_each_change_is_counted_and_named(words):
    before, key = a_table(), new_key()
    frame = CHANGES[words](before.frame)
    now = Fingerprint(frame.reset_index(drop=True), before.pictures[frame.index])
    assert name_changes(before.parts, now, before.keyed_rows(key), key) == [words]
    told = name_changes(before.parts, now)
    assert told
    assert all(word.startswith("other ") for word in told)
    assert name_changes(before.parts, a_table(), before.keyed_rows(key), key) == []


def test_the_fingerprint_is_of_the_whole_table_wherever_the_pictures_are(
    make_folder, columns, tmp_path
):
    root = make_folder()
    loads = [
        load_dataset_table("folder", root, image_size=16, progress=False, **more, **columns)
        for more in (
            {},
            {"cache": False},
            {"splits": ("train", "validation")},
            {"cache": False, "splits": ("test",)},
        )
    ]
    parts = [table.fingerprint.parts for table in loads]
    assert parts[1:] == parts[:1] * 3
    whole = loads[0]
    np.testing.assert_array_equal(whole.fingerprint.pictures, digest_pictures(whole.images))
    assert whole.subset("test").take([0]).fingerprint is whole.fingerprint


def test_numbers_that_count_up_are_told_from_those_of_a_register():
    assert number_range(pd.Series(["P0003", "P0012", "P0007"])) == 10
    assert number_range(pd.Series(["1000000", "9000000"])) == 8_000_001
    assert number_range(pd.Series(["smith", "jones"])) is None
    assert number_range(pd.Series(["smith1", "jones2", "wu3"])) is None
    assert number_range(pd.Series(["1", "2", "3", "x9"])) == 3
    assert real_ids(pd.Series(["p1", "row 7", "p1", "rower 3"])).tolist() == ["p1", "rower 3"]
