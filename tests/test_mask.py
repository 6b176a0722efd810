"""The mask as data: reading, layouts, presets, algebra and error texts. No torch."""

import doctest
import re
import subprocess
import sys

import pytest

from fairtune_hf import mask
from fairtune_hf.mask import LAYOUTS, PRESETS, Mask, mask_bit_names


def test_doctests():
    assert doctest.testmod(mask).failed == 0


def test_block3_is_norms_attention_mlp_of_each_block():
    names = mask_bit_names("block3", 12)
    assert len(names) == 36
    assert names[0] == "blocks.0.layernorm"
    assert names[3 * 7 + 1] == "blocks.7.attention"
    assert names[35] == "blocks.11.mlp"


def test_block4_is_norm1_attention_norm2_mlp():
    names = mask_bit_names("block4", 12)
    assert len(names) == 48
    assert names[4:8] == [
        "blocks.1.norm1",
        "blocks.1.attention",
        "blocks.1.norm2",
        "blocks.1.mlp",
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_bit_at_a_time_trains_disjoint_units(layout):
    n = len(mask_bit_names(layout, 3))
    seen = set()
    for i in range(n):
        units = Mask.parse([int(j == i) for j in range(n)], layout, 3).units()
        assert units
        assert not units & seen
        seen |= units
    assert seen == Mask.parse([1] * n, layout, 3).units()


@pytest.mark.parametrize(
    "value",
    [
        "011000",
        "011 000",
        "011|000",
        [0, 1, 1, 0, 0, 0],
        (False, True, True, False, False, False),
        ["0", "1", "1", "0", "0", "0"],
        {"attention": [1, 0], "mlp": "10"},
        {"attention": "10", "mlp": (1, 0), "layernorm": False},
        {"layernorm": "00", "attention": "10", "mlp": "10"},
        Mask((0, 1, 1, 0, 0, 0), "block3", 2),
    ],
)
def test_every_form_reads_the_same(value):
    read = Mask.parse(value, "block3", 2)
    assert read == Mask((0, 1, 1, 0, 0, 0), "block3", 2)
    assert str(read) == "011000"
    assert read.units() == {(0, "attention"), (0, "mlp")}
    assert hash(read) == hash(Mask.parse("011000", blocks=2))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_canonical_form_round_trips(layout):
    n = len(mask_bit_names(layout, 5))
    original = Mask.parse([i * 7 % 3 == 0 for i in range(n)], layout, 5)
    assert Mask.parse(original.to_dict(), layout, 5) == original


@pytest.mark.parametrize(
    ("preset", "layout", "bits"),
    [
        ("none", "block3", "000"),
        ("layernorm", "block3", "100"),
        ("attention", "block3", "010"),
        ("mlp", "block3", "001"),
        ("full_blocks", "block3", "111"),
        ("layernorm", "block4", "1010"),
        ("full_blocks", "block4", "1111"),
        ("full_blocks", "block", "1"),
        ("attention", "attention", "1"),
        ("mlp", "mlp", "1"),
        ("attention", "attention_params", "1111"),
        ("layernorm_tuning", "block3", "100"),
        ("bitfit", "block3", "000"),
    ],
)
def test_presets(preset, layout, bits):
    assert str(Mask.parse(preset, layout, 4)) == bits * 4


def test_methods_say_what_they_train_outside_the_blocks():
    assert {name: p.train_also for name, p in PRESETS.items() if p.train_also} == {
        "full": ("everything_else",),
        "attention_tuning": ("position_embeddings",),
        "layernorm_tuning": ("final_norm",),
        "bitfit": ("biases",),
    }


def test_algebra():
    a, b = Mask.parse("110000", blocks=2), Mask.parse("010001", blocks=2)
    assert str(a.union(b)) == str(a | b) == "110001"
    assert a.distance(b) == b.distance(a) == 2
    assert a.distance(a) == 0
    assert (a.count(), (a | b).count()) == (2, 3)
    assert a.row("attention") == (1, 0)


def test_summary_lines_up_beyond_ten_blocks():
    lines = Mask.parse("attention", blocks=12).summary().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["attention", *"#" * 12]
    assert "12 of 36 bits" in repr(Mask.parse("attention", blocks=12))


@pytest.mark.parametrize(
    ("value", "layout", "error", "text"),
    [
        (
            "0" * 35,
            "block3",
            ValueError,
            "expected 36 bits for layout 'block3' (3 per block, 12 blocks), got 35. Pass one bit",
        ),
        ([0] * 48, "block3", ValueError, "48 bits fit layout 'block4' or 'attention_params'"),
        ([0, 2] * 18, "block3", ValueError, "bits that are 0 or 1, got 2"),
        ("atention", "block3", ValueError, "Did you mean 'attention'?"),
        ({"attn": True}, "block3", ValueError, "part 'attn' is not in layout 'block3'"),
        (
            {"mlp": "01"},
            "block3",
            ValueError,
            "expected 12 bits for part 'mlp' (one per block), got 2",
        ),
        (3.5, "block3", TypeError, "got float"),
        ("mlp", "attention", ValueError, "layout 'attention' has no bits for"),
        ("none", "blok3", ValueError, "Did you mean 'block3'?"),
        (Mask.parse("none", blocks=2), "block3", ValueError, "over 2 blocks"),
    ],
)
def test_errors_say_what_was_expected_and_what_to_do(value, layout, error, text):
    with pytest.raises(error, match=re.escape(text)):
        Mask.parse(value, layout, 12)


def test_masks_of_other_models_are_not_compared():
    with pytest.raises(ValueError, match="over 2 and 'block3' over 3"):
        Mask.parse("none", blocks=2).distance(Mask.parse("none", blocks=3))


def test_needs_neither_torch_nor_peft():
    code = (
        "import sys, fairtune_hf.mask as mask;"
        "assert not {'torch', 'peft', 'numpy'} & set(sys.modules);"
        "print(mask.Mask.parse('none', blocks=1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "000"
