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
    held = table[(table["sex"] == "F") & (table["split"] == "validation") & (table["label"] == 0)]
    line = next(line for line in card.text.splitlines() if line.startswith("| F |"))
    assert line.split("|")[4].strip() == str(len(held))
    assert "240 pictures of 120 patients" in card.text
    assert "| no label | 7 |" in card.text
    assert "empty" not in card.text


def test_small_cells_and_patients_are_hidden(prepared):
    text = render_dataset_card(prepared).read_text()
    assert "SECRET" not in text
    line = next(line for line in text.splitlines() if line.startswith("| rare"))
    assert line.startswith("| rare \\| &lt;b&gt; | &lt;10 | &lt;10 | 0 | 0 | 0 | 0 |")
    others = [r for r in text.splitlines() if r.startswith(("| F", "| M"))]
    for column in (2, 3):  # else the total less the shown cells would be the hidden one
        assert sum(r.split("|")[column].strip() == "not shown" for r in others) == 1
    assert not any("not shown" in r.split("|")[4] for r in others)
    assert "has &lt;10 rows" in text


def test_a_class_under_ten_is_hidden_in_a_warning(prepared):
    """The group itself is large; its cell in the table is one of fewer than ten."""
    table = pd.read_csv(prepared / "table.csv")
    few = table["split"].eq("validation") & table["sex"].eq("F") & table["label"].eq(0)
    few &= table["patient_id"] != table.loc[few, "patient_id"].iloc[0]
    table.loc[few, "label"] = 1
    table.to_csv(prepared / "table.csv", index=False)
    facts = json.loads((prepared / "prepared.json").read_text())
    facts["warnings"] = ["group 'F' has only 2 negatives and 18 positives in validation"]
    (prepared / "prepared.json").write_text(json.dumps(facts))
    assert "only &lt;10 negatives and 18" in render_dataset_card(prepared).read_text()


def test_a_card_that_would_name_a_row_or_a_patient_is_not_written(prepared):
    facts = json.loads((prepared / "prepared.json").read_text())
    for words in ("SECRET-00003 twice", "left out: images/Meyer.png is empty"):
        named = facts | {"warnings": ["fine", words]}
        (prepared / "prepared.json").write_text(json.dumps(named))
        with pytest.raises(ValueError, match=r"prepared\.json, warnings\[1\]: names"):
            render_dataset_card(prepared)
        assert not (prepared / "README.md").exists()


def test_a_table_alone_is_enough(prepared):
    (prepared / "prepared.json").unlink()
    assert "not recorded" in render_dataset_card(prepared).read_text()


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table\.csv does not exist"):
        render_dataset_card(tmp_path)
    (tmp_path / "table.csv").write_text("row_id,label\n1,0\n")
    with pytest.raises(ValueError, match="patient_id, split is missing"):
        render_dataset_card(tmp_path)
