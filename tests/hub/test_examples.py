"""The rendered examples are golden: made again from their run's files, they come out the same.

After a change that is meant, render them anew with `fairtune report --run hub_cards/examples/demo`
and look at the difference before committing it.
"""

import shutil

import pytest
from huggingface_hub import DatasetCard, ModelCard

from fairtune_hf.hub import render_card, render_dataset_card, template_folder
from fairtune_hf.reports import render_report

EXAMPLE = template_folder() / "examples" / "demo"
DATASET = template_folder() / "examples" / "demo-dataset"
INPUTS = ("run.json", "config.yaml", "trials.csv", "curves.csv", "predictions.parquet")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example") / "demo"
    folder.mkdir()
    for name in INPUTS:
        shutil.copy(EXAMPLE / name, folder / name)
    render_report(folder)
    render_card(folder)
    return folder


def outputs():
    found = [p for p in EXAMPLE.rglob("*") if p.is_file() and p.name not in INPUTS]
    return sorted(str(path.relative_to(EXAMPLE)) for path in found)


def test_nothing_is_missing_and_nothing_is_left_over(rendered):
    made = {str(p.relative_to(rendered)) for p in rendered.rglob("*") if p.is_file()}
    assert made - set(INPUTS) == set(outputs())


@pytest.mark.parametrize("name", outputs())
def test_an_example_comes_out_the_same(rendered, name):
    assert (rendered / name).read_text() == (EXAMPLE / name).read_text()


def test_the_example_card_loads():
    card = ModelCard.load(EXAMPLE / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.eval_results


def test_the_dataset_card_comes_out_the_same(tmp_path):
    shutil.copy(DATASET / "table.csv", tmp_path / "table.csv")
    if (DATASET / "prepared.json").is_file():
        shutil.copy(DATASET / "prepared.json", tmp_path / "prepared.json")
    folder = tmp_path.rename(tmp_path.with_name("demo-dataset"))
    assert render_dataset_card(folder).read_text() == (DATASET / "README.md").read_text()
    card = DatasetCard.load(DATASET / "README.md")
    assert card.data.task_categories == ["image-classification"]
    assert "### skin_type" in card.text
