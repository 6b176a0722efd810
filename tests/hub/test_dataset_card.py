import json

import pandas as pd
import pytest
from huggingface_hub import DatasetCard

from fairtune_hf.hub import render_dataset_card


@pytest.fixture
def prepared(tmp_path):
    """240 pictures of 120 patients; the group `rare | <b>` has three patients."""
    rows = range(240)
    frame = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in rows],
            "patient_id": [f"SECRET-{i // 2:05d}" for i in rows],
            "label": [i // 2 % 2 for i in rows],
            "sex": ["rare | <b>" if i < 6 else "F" if i % 4 < 2 else "M" for i in rows],
            "split": ["train" if i < 160 else "validation" if i < 200 else "test" for i in rows],
        }
    )
    frame.to_csv(tmp_path / "table.csv", index=False)
    facts = {
        "dataset": "my set",
        "label_names": ["healthy", "ill"],
        "image_size": 64,
        "dropped": {"no label": 7},
        "warnings": ["Group rare | <b> has 6 rows."],
        "split_hash": "ab" * 32,
        "options": {"unknown": "drop", "empty": ""},
    }
    (tmp_path / "prepared.json").write_text(json.dumps(facts))
    return tmp_path


def test_it_loads_and_counts(prepared):
    card = DatasetCard.load(render_dataset_card(prepared))
    assert card.data.task_categories == ["image-classification"]
    assert card.data.size_categories == ["n<1K"]
    table = pd.read_csv(prepared / "table.csv")
    held = table[(table["sex"] == "F") & (table["split"] == "train") & (table["label"] == 0)]
    line = next(line for line in card.text.splitlines() if line.startswith("| F |"))
    assert line.split("|")[2].strip() == str(len(held))
    assert "240 pictures of 120 patients" in card.text
    assert "| no label | 7 |" in card.text
    assert "empty" not in card.text


def test_small_cells_and_patients_are_hidden(prepared):
    text = render_dataset_card(prepared).read_text()
    assert "SECRET" not in text
    line = next(line for line in text.splitlines() if line.startswith("| rare"))
    assert line.startswith("| rare \\| &lt;b&gt; | &lt;10 | &lt;10 | 0 | 0 | 0 | 0 |")
    assert "has &lt;10 rows" in text


def test_a_table_alone_is_enough(prepared):
    (prepared / "prepared.json").unlink()
    assert "not recorded" in render_dataset_card(prepared).read_text()


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table\.csv does not exist"):
        render_dataset_card(tmp_path)
    (tmp_path / "table.csv").write_text("row_id,label\n1,0\n")
    with pytest.raises(ValueError, match="patient_id, split is missing"):
        render_dataset_card(tmp_path)
