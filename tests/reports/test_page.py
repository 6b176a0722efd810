import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf.reports import render_report
from fairtune_hf.reports.page import merged_warnings, optimism_words
from fairtune_hf.run_folder import write_text


class Page(HTMLParser):
    """Collects elements, ids and text; complains of tags that do not close."""

    VOID = frozenset({"meta", "link", "br", "img", "hr"})

    def __init__(self, path):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def ids(self):
        return [a["id"] for _, a in self.elements if "id" in a]

    def sections(self):
        return [a["id"] for tag, a in self.elements if tag == "section"]


def test_an_evaluated_run_shows_every_part(evaluated):
    page = Page(render_report(evaluated))
    assert page.sections() == [
        "verdict", "methods", "groups", "mask", "search", "warnings", "data", "reproduce",
    ]  # fmt: skip
    run = json.loads((evaluated / "run.json").read_text())
    assert f"{run['test']['min_auc']:.3f}" in page.text
    assert f"{run['controls']['linear_readout']['test']['auc_gap']:.3f}" in page.text
    assert run["dataset"]["split_hash"] in page.text
    assert "On the test set, the AUC of the worst-off group" in page.text


def test_the_page_needs_no_network_and_runs_nothing(evaluated):
    html = render_report(evaluated).read_text()
    page = Page(evaluated / "report.html")
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not re.search(r"""(?:href|src|url)\s*[=(]\s*["']?(?!data:,)[a-z]+:""", html)
    assert not any(name.startswith("on") for _, a in page.elements for name in a)


def test_every_drawing_has_alt_text_and_ids_are_unique(evaluated):
    page = Page(render_report(evaluated))
    drawings = [a for tag, a in page.elements if tag == "svg" and a.get("role") == "img"]
    assert len(drawings) >= 5
    known = set(page.ids())
    assert len(known) == len(page.ids())
    assert all(set(a["aria-labelledby"].split()) <= known for a in drawings)


def test_every_drawing_has_its_data(evaluated):
    page = Page(render_report(evaluated))
    names = [a["id"].removeprefix("figure-") for tag, a in page.elements if tag == "figure"]
    written = {file.stem for file in (evaluated / "figures").glob("*.csv")}
    assert set(names) <= written
    history = pd.read_csv(evaluated / "figures" / "search_history.csv", dtype={"mask": str})
    trials = pd.read_csv(evaluated / "trials.csv", dtype={"mask": str})
    pd.testing.assert_series_equal(history["value"], trials["value"])
    best = trials["value"].where(trials["state"].eq("COMPLETE")).max()
    assert history["best_so_far"].iloc[-1] == best


def test_the_page_names_the_objective_and_its_direction(make_run):
    page = Page(render_report(make_run(directions={"auc_gap": "minimize"}, stage="searched")))
    assert "Best completed trials, by validation AUC gap (lower is better)" in page.text
    assert "AUC gap (lower is better) over the whole validation split" in page.text
    assert "too high" not in page.text


def test_the_luck_of_the_best_trial_is_told_as_an_upper_estimate():
    words = optimism_words(0.0591)
    assert "too good, by at most about 0.059 on average" in words
    assert "for independent" in words
    assert optimism_words(None) == ""


def test_a_run_that_was_only_searched_says_what_is_missing(searched):
    page = Page(render_report(searched))
    assert "No verdict yet" in page.text
    assert "fairtune finetune --run" in page.text
    assert "search" in page.sections()
    assert "groups" not in page.sections()


def test_a_folder_with_only_run_json(make_run):
    path = make_run(stage="searched")
    for file in ("trials.csv", "curves.csv"):
        (path / file).unlink()
    (path / "run.json").write_text('{"schema_version": 1}')
    assert "fairtune search" in Page(render_report(path)).text


@pytest.mark.parametrize("part", ["controls", "comparisons", "seeds", "search", "choice", "model"])
def test_any_missing_part_is_left_out(evaluated, tmp_path, part):
    path = Path(shutil.copytree(evaluated, tmp_path / "run"))
    run = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(run | {part: None}))
    Page(render_report(path))


def test_hostile_names_are_inert(nasty):
    page = Page(render_report(nasty))
    assert "script" not in {tag for tag, _ in page.elements}
    assert "img" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert "<script>alert(1)</script>" in page.text
    assert "\"quoted\" & 'single'" in page.text


FILE_NAME = """it's "quoted" `x` <img src=x onerror="alert(3)">.png"""


def test_a_file_name_in_a_warning_is_inert(make_run):
    path = make_run()
    run = json.loads((path / "run.json").read_text())
    dropped = {f"unreadable {FILE_NAME}": 12}
    warnings = [f"{FILE_NAME} could not be read."]
    changed = run | {"warnings": warnings, "dataset": run["dataset"] | {"dropped": dropped}}
    (path / "run.json").write_text(json.dumps(changed))
    page = Page(render_report(path))
    assert page.text.count(FILE_NAME) == 2
    assert not {"img", "script"} & {tag for tag, _ in page.elements}


def test_counts_of_groups_under_ten_are_hidden_and_their_auc_is_shown(nasty):
    html = render_report(nasty).read_text()
    run = json.loads((nasty / "run.json").read_text())
    auc = run["test"]["groups"]["tiny"]["auc"]
    table = html.split('<section id="groups">')[1]
    line = next(part for part in table.split("<tr") if ">tiny" in part).split("</tr>")[0]
    assert line.count("&lt;10") == 3
    assert f"{auc:.3f}" in line, "the headline is made of it"
    data = pd.read_csv(nasty / "figures" / "group_auc.csv")
    assert "tiny" in set(data["group"])
    operating = html.split("<h3>Operating point")[1].split("</table>")[0]
    assert "tiny" not in operating
    curves = pd.read_csv(nasty / "figures" / "roc.csv")
    assert len(set(curves["group"])) == 1, "nor is the next smallest: its curve has a step a case"


def test_patient_codes_never_appear(evaluated):
    html = render_report(evaluated).read_text()
    tables = "".join(file.read_text() for file in (evaluated / "figures").glob("*.csv"))
    codes = pd.read_parquet(evaluated / "predictions.parquet")["patient"].unique()
    assert not any(str(code) in html or str(code) in tables for code in codes)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "page.html"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_broken_files_are_named(make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        render_report(tmp_path / "nowhere")
    path = make_run(stage="searched")
    (path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json to be the record of a run, and it is no JSON"):
        render_report(path)
    (path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"it holds a list, not an object"):
        render_report(path)
    (path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match="schema version 99"):
        render_report(path)
    (path / "run.json").write_text('{"schema_version": 1}')
    (path / "predictions.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"predictions\.parquet"):
        render_report(path)


CONFIG = """dataset: folder
data_root: /home/someone/pictures
storage: postgresql+psycopg2://someone:secret@host/studies
trials: 40
label_column: <script>alert(1)</script>
"""


def test_commands_and_configuration_repeat_the_run(make_run):
    path = make_run()
    (path / "config.yaml").write_text(CONFIG)
    page = Page(render_report(path))
    assert "fairtune search --config config.yaml --out DIR" in page.text
    assert "fairtune finetune --run DIR --seeds 3" in page.text
    assert "trials: 40" in page.text
    assert "label_column: <script>alert(1)</script>" in page.text
    assert not any(word in page.text for word in ("someone", "secret", "/home"))
    (path / "config.yaml").unlink()
    assert "fairtune search" not in Page(render_report(path)).text
    (path / "config.yaml").write_text("- a list")
    with pytest.raises(ValueError, match=r"config\.yaml to hold names and values"):
        render_report(path)


def test_the_demo_is_named_a_demo(evaluated, make_run):
    assert "not medicine" in Page(render_report(evaluated)).text
    assert "not medicine" not in Page(render_report(make_run(name="ham10000"))).text


def test_a_warning_of_several_methods_is_said_once():
    found = [
        "the chosen mask, test: Group a is small.",
        "full_blocks, test: Group a is small.",
        "full_blocks, validation: Group a is small.",
        "Group a is small.",
        "Something else: here.",
    ]
    assert merged_warnings(found) == [
        "Something else: here.",
        "test (the chosen mask, full fine-tuning): Group a is small.",
        "validation (full fine-tuning): Group a is small.",
    ]
