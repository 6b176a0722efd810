from __future__ import annotations

import numpy as np
import pytest

from fairtune_hf.data import load_dataset_table, stratified_fraction


def cells(table):
    counts = table.counts()
    return counts.set_index(["split", "group", "label"])["rows"]


def test_each_cell_keeps_its_share():
    table = load_dataset_table("demo", image_size=16)
    part = stratified_fraction(table, 0.1, seed=0)
    whole, kept = cells(table), cells(part)
    for cell, rows in whole.items():
        assert kept[cell] == (round(0.1 * rows) if cell[0] == "train" else rows)
    assert part.split_hash == table.split_hash
    assert not part.frame["row_id"].duplicated().any()
    place = {r: i for i, r in enumerate(table.frame["row_id"])}
    for row in (0, 40, len(part) - 1):
        at = place[part.frame["row_id"][row]]
        np.testing.assert_array_equal(part.images[row], table.images[at])
        assert part.patients[row] == table.patients[at]


def test_seed_decides_and_small_cells_keep_a_row():
    table = load_dataset_table("demo", image_size=16).subset("train")
    first = stratified_fraction(table, 0.2, seed=0).frame["row_id"]
    assert list(first) == list(stratified_fraction(table, 0.2, seed=0).frame["row_id"])
    assert list(first) != list(stratified_fraction(table, 0.2, seed=1).frame["row_id"])
    assert cells(stratified_fraction(table, 0.001)).tolist() == [1, 1, 1, 1]
    assert stratified_fraction(table, 1) is table


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(fraction):
    table = load_dataset_table("demo", image_size=16)
    with pytest.raises(ValueError, match="fraction must be above 0"):
        stratified_fraction(table, fraction)
