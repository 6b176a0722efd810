import ast
import itertools
import json
import re

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from fairtune_hf.hub import render_card, template_folder
from fairtune_hf.hub.templates import escape_markdown, python_string
from fairtune_hf.metrics.registry import METRICS


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_metadata_is_what_the_hub_reads(evaluated):
    file = render_card(evaluated, repo_id="org/skin")
    assert file == evaluated / "README.md"
    card = ModelCard.load(file)
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.base_model == "fairtune_hf/demo-backbone"
    assert {"fairtune", "fairness"} <= set(card.data.tags)
    data = front_matter(file.read_text())
    name, results = model_index_to_eval_results(data["model-index"])
    run = json.loads((evaluated / "run.json").read_text())
    values = {result.metric_name: result.metric_value for result in results}
    assert name == "skin"
    assert values["AUC of the worst-off group"] == pytest.approx(run["test"]["min_auc"], abs=1e-6)
    assert {result.dataset_split for result in results} == {"test"}


def test_every_result_of_the_metadata_stands_in_the_text_with_its_interval(evaluated):
    card = ModelCard.load(render_card(evaluated, repo_id="org/skin"))
    again = ModelCardData(**card.data.to_dict())
    assert again.eval_results == card.data.eval_results
    test = json.loads((evaluated / "run.json").read_text())["test"]
    told = {
        f"{value:.3f}": test.get(f"{name}_ci") for name, value in test.items() if name in METRICS
    }
    assert len(card.data.eval_results) >= 4
    for result in card.data.eval_results:
        value = f"{result.metric_value:.3f}"
        bounds = told[value]
        words = f" [{bounds[0]:.3f} to {bounds[1]:.3f}]" if bounds else ""
        assert f"| {value}{words} |" in card.text


def test_no_results_are_claimed_before_the_test_rows_were_read(searched):
    card = ModelCard.load(render_card(searched))
    assert card.data.eval_results is None
    assert "## Results" not in card.text
    assert "fairtune evaluate" in card.text


def python_blocks(text):
    return [block.split("```")[0] for block in text.split("```python\n")[1:]]


def loading_lines(text):
    return next(block for block in python_blocks(text) if "PeftModel" in block)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"id": "fairtune_hf/demo-backbone", "revision": None}, "load_backbone()"),
        ({"id": "google/vit-base", "revision": "abc"}, "'google/vit-base', revision='abc'"),
        ({"id": "my_vit", "revision": None}, "'PATH/TO/my_vit'"),
    ],
)
def test_three_lines_load_the_adapter(make_run, model, expected):
    path = make_run(stage="searched")
    run = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(run | {"model": {**model, "sha256": "ab" * 32}}))
    lines = loading_lines(render_card(path, repo_id="org/name").read_text())
    assert len(ast.parse(lines).body) == 3
    assert lines.startswith("import fairtune_hf")
    assert expected in lines
    assert "'org/name'" in lines


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"id": "fairtune_hf/demo-backbone", "revision": None}, "load_predictor('org/name')"),
        ({"id": "google/vit-base", "revision": "abc"}, "load_predictor('org/name')"),
        ({"id": "my_vit", "revision": None}, "('org/name', base_model='PATH/TO/my_vit')"),
    ],
)
def test_the_first_lines_end_in_a_score_for_one_picture(make_run, model, expected):
    path = make_run(stage="searched")
    run = json.loads((path / "run.json").read_text())
    run["dataset"]["label_names"] = ["benign", 'a "b" ```\nimport os']
    (path / "run.json").write_text(json.dumps(run | {"model": {**model, "sha256": "ab" * 32}}))
    first = python_blocks(render_card(path, repo_id="org/name").read_text())[0]
    body = ast.parse(first).body
    assert len(body) == 4
    assert expected in first
    assert ast.unparse(body[-1]) == "print(found.score, found.label)"


def test_labels_and_operating_point_are_told(evaluated):
    text = render_card(evaluated).read_text()
    run = json.loads((evaluated / "run.json").read_text())
    negative, positive = map(escape_markdown, run["dataset"]["label_names"])
    at = f"{run['test']['threshold']:.3f}"
    assert f"A score of at least {at} is called {positive}, any other {negative}" in text


def test_a_path_of_this_machine_is_not_told(make_run):
    path = make_run(stage="searched")
    run = json.loads((path / "run.json").read_text())
    model = {"id": "/home/someone/models/my_vit", "revision": None}
    (path / "run.json").write_text(json.dumps(run | {"model": {**model, "sha256": "ab" * 32}}))
    card = ModelCard.load(render_card(path))
    assert "someone" not in card.content
    assert card.data.base_model is None


def test_hostile_names_are_inert(nasty):
    text = render_card(nasty).read_text()
    ModelCard.load(nasty / "README.md")
    body = text.split("---\n", 2)[2]
    assert "<" not in body.replace("<br>", "")
    assert "[link](" not in body
    rows = [line for line in body.splitlines() if "quoted" in line and line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert 8 in cells  # the groups table keeps its seven columns
    assert front_matter(text)["model-index"][0]["results"][0]["dataset"]["name"].startswith("<img")


def test_a_file_name_in_a_warning_is_inert(make_run):
    path = make_run()
    run = json.loads((path / "run.json").read_text())
    name = """it's "quoted" `x` <img src=x onerror="alert(3)"> [a](http://x.org).png"""
    (path / "run.json").write_text(json.dumps(run | {"warnings": [f"{name} could not be read."]}))
    text = ModelCard.load(render_card(path)).text
    line = next(line for line in text.splitlines() if "could not be read" in line)
    assert "alert(3)" in line
    assert "<" not in line
    assert "[a](" not in line
    assert not re.search(r"(?<!\\)`", line)


def test_small_groups_and_patients_are_hidden(nasty):
    text = render_card(nasty).read_text()
    row = next(line for line in text.splitlines() if line.startswith("| tiny"))
    assert row.count("&lt;10") == 3
    run = json.loads((nasty / "run.json").read_text())
    assert f"{run['test']['groups']['tiny']['auc']:.3f} |" in row, "the headline is made of it"
    second = next(line for line in text.splitlines() if "quoted" in line and "not shown" in line)
    assert second.count("not shown") == 3
    codes = pd.read_parquet(nasty / "predictions.parquet")["patient"].unique()
    assert not any(str(code) in text for code in codes)


def test_tables_are_whole(evaluated):
    lines = render_card(evaluated).read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if line.startswith("| ---"):
            assert above.count("|") == line.count("|")
            assert above.startswith("|")


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("<b>", "&lt;b&gt;"),
        ("two\nlines", "two lines"),
        ("skin_type", "skin_type"),
        ("_x_", "\\_x\\_"),
        ("# head", "\\# head"),
        ("![a](b)", "!\\[a\\](b)"),
    ],
)
def test_escaping(value, escaped):
    assert escape_markdown(value) == escaped


def test_a_string_cannot_leave_its_code_block():
    literal = python_string("x```\n'; import os")
    assert "```" not in literal
    assert ast.literal_eval(literal) == "x```\n'; import os"


def test_the_templates_are_found():
    assert (template_folder() / "model_card.md.jinja").is_file()
