"""Column values and file names that try to be markup stay text, from the data to every page and card."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import DatasetCard, ModelCard

from fairtune_hf.cli.main import main
from fairtune_hf.hub import render_dataset_card

pytestmark = pytest.mark.slow

VALUE = "<script>alert(1)</script>"
COLUMN = 'sex" onload="alert(2)'
RENAMED = 'it\'s "quoted" & <b>bold</b>.png'.replace("/", "\u2215")
BROKEN = "\"><img src=x onerror='alert(3)'>.png"


@pytest.fixture(scope="module")
def pictures(pictures_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn folder with a hostile group, a hostile column, a hostile name and a broken picture."""
    root = Path(shutil.copytree(pictures_template, tmp_path_factory.mktemp("hostile") / "set"))
    table = pd.read_csv(root / "metadata.csv")
    (root / table.loc[0, "file_name"]).rename(root / RENAMED)
    table.loc[0, "file_name"] = RENAMED
    table["sex"] = table["sex"].replace("F", VALUE)
    broken = table.iloc[[1]].assign(file_name=BROKEN)
    (root / BROKEN).write_bytes(b"no picture")
    table = pd.concat([table, broken]).rename(columns={"sex": COLUMN})
    table.to_csv(root / "metadata.csv", index=False)
    return root


@pytest.fixture(scope="module")
def flags(pictures: Path) -> list[str]:
    return [
        "--dataset=folder", f"--data-root={pictures}", "--label-column=diagnosis",
        f"--sensitive-column={COLUMN}", "--patient-column=person", "--split-column=part",
        "--skip-corrupt",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(flags: list[str], tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "hostile"
    fit = ["--trials=2", "--epochs=2", "--batch-size=32"]
    assert main(["search", *flags, f"--model={tiny_vit}", f"--out={out}", *fit]) == 0
    assert main(["finetune", f"--run={out}", "--seeds=1"]) == 0
    assert main(["evaluate", f"--run={out}", "--resamples=200"]) == 0
    assert main(["report", f"--run={out}"]) == 0
    return out


class Elements(HTMLParser):
    """The elements, their attributes and the text of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_inert(file: Path) -> None:
    page = Elements(file)
    assert not page.tags & {"script", "b", "iframe", "object"}
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(str(value).startswith("data:") for value in sources)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert VALUE in page.text


def test_the_report(run: Path) -> None:
    assert_inert(run / "report.html")
    assert COLUMN in Elements(run / "report.html").text


def test_the_model_card(run: Path) -> None:
    card = ModelCard.load(run / "README.md")
    assert card.data.library_name == "peft"
    assert "<" not in card.text.replace("<br>", "")
    assert "alert(1)" in card.text  # shown, as text


@pytest.mark.parametrize("suffix", ["html", "md", "tex"])
def test_the_comparison(run: Path, tmp_path: Path, suffix: str) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert main(["report", "--runs", str(run), str(other), f"--out={tmp_path / 'all'}"]) == 0
    file = tmp_path / "all" / f"comparison.{suffix}"
    if suffix == "html":
        page = Elements(file)
        assert "script" not in page.tags
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert COLUMN in page.text
    else:
        assert "<script" not in file.read_text()


def test_the_data_report_and_the_dataset_card(flags: list[str], tmp_path: Path) -> None:
    assert main(["prepare", *flags, "--image-size=32", f"--out={tmp_path}"]) == 0
    assert_inert(tmp_path / "data_report.html")
    card = DatasetCard.load(render_dataset_card(tmp_path))
    assert "<" not in card.text.replace("<br>", "")
    assert "alert(1)" in card.text


def test_the_data_are_those_that_were_meant(run: Path) -> None:
    """The hostile picture is a row like any other, and the broken one was left out and counted."""
    predictions = pd.read_parquet(run / "predictions.parquet")
    assert VALUE in set(predictions[COLUMN])
    assert "Left out" in (run / "report.html").read_text()
