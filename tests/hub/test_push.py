import dataclasses
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForImageClassification

from fairtune_hf import load_predictor
from fairtune_hf.cli.main import main
from fairtune_hf.hub import plan_push, push_run
from fairtune_hf.hub.public import check_no_ids
from fairtune_hf.plain_data import read_as
from fairtune_hf.reports.loaded_run import read_run
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import GroupCounts, GroupResult, ModelRecord

_file = Path(__file__).with_name("loopback_hub.py")
_spec = importlib.util.spec_from_file_location("loopback_hub", _file)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

REPO = "org/adapter"
HUB_MODEL = ModelRecord(id="google/vit-base", revision="a" * 40, sha256="b" * 64)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    server = _module.LoopbackHub()
    yield server
    server.close()


@pytest.fixture
def run(finished_run, tmp_path):
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def hub_run(run):
    """The run as if its base model had come from the Hub and each picture from its own patient."""
    table = pd.read_parquet(run / "predictions.parquet")
    codes = table["row_id"].astype("category").cat.codes.astype("int64")
    table.assign(patient=codes).to_parquet(run / "predictions.parquet", index=False)
    change(run, model=HUB_MODEL)
    return run


def change(run, **parts):
    with RunFolder(run).editing() as record:
        for name, value in parts.items():
            setattr(record, name, value)


def names(plan):
    return {file.name for file in plan.files}


@pytest.mark.slow
def test_the_cards_lines_give_the_runs_own_score_and_logits_in_a_fresh_process(
    run, tiny_vit, hub, pictures, tmp_path
):
    push_run(run, REPO, with_base=True, base_dir=tiny_vit, endpoint=hub.url, token="hf_x")
    card = hub.files(REPO)["README.md"].decode()
    score, lines = (block.split("```")[0] for block in card.split("```python\n")[1:])
    picture = next(pictures.glob("p05*.png"))
    (tmp_path / "PATH" / "TO").mkdir(parents=True)
    shutil.copy(picture, tmp_path / "PATH" / "TO" / "PICTURE")
    torch.manual_seed(3)
    pixels = torch.rand(4, 3, 32, 32)
    torch.save(pixels, tmp_path / "pixels.pt")
    script = (
        score + "import torch\n" + lines + "model.eval()\n"
        f"pixels = torch.load({str(tmp_path / 'pixels.pt')!r})\n"
        f"torch.save(model(pixels).logits, {str(tmp_path / 'logits.pt')!r})\n"
    )
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True, env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    right = load_predictor(run, device="cpu")(picture)[0]
    said, label = done.stdout.split()
    assert float(said) == pytest.approx(right.score, abs=1e-6)
    assert label == right.label
    base = AutoModelForImageClassification.from_pretrained(
        tiny_vit, num_labels=2, ignore_mismatched_sizes=True
    )
    model = PeftModel.from_pretrained(base, run / "adapter").eval()
    with torch.no_grad():
        expected = model(pixels).logits
    assert torch.equal(torch.load(tmp_path / "logits.pt"), expected)


def test_a_push_sends_adapter_card_record_and_report(hub_run, hub):
    plan = push_run(hub_run, REPO, endpoint=hub.url, token="hf_x")
    sent = hub.files(REPO)
    assert set(sent) == names(plan) == {
        "adapter_config.json", "adapter_model.safetensors", "fairtune.json", "preprocessor_config.json",
        "README.md", "run.json", "report.html",
    }  # fmt: skip
    assert (
        sent["adapter_model.safetensors"]
        == (hub_run / "adapter" / "adapter_model.safetensors").read_bytes()
    )
    assert plan.size_bytes == sum(map(len, sent.values()))
    config = json.loads(sent["adapter_config.json"])
    assert config["base_model_name_or_path"] == "google/vit-base"
    assert config["revision"] == "a" * 40
    card = ModelCard(sent["README.md"].decode())
    assert card.data.base_model == "google/vit-base"
    assert f"'{REPO}'" in card.text


def test_a_dry_run_opens_no_connection_and_lists_bytes(hub_run, hub):
    plan = push_run(hub_run, REPO, dry_run=True, endpoint=hub.url)
    assert hub.requests == []
    weights = (hub_run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert f"{weights:,}  adapter_model.safetensors" in plan.render()
    assert "org/adapter (private)" in plan.render()


def test_an_interrupted_upload_goes_on_where_it_stopped(hub_run, hub):
    plan = plan_push(hub_run, REPO, with_predictions=True)
    scores = next(f for f in plan.files if f.name == "predictions.parquet").content
    cut = _module.hashlib.sha256(scores).hexdigest()
    hub.broken.add(cut)
    with pytest.raises(ConnectionError, match="Run the same command again"):
        push_run(hub_run, REPO, with_predictions=True, endpoint=hub.url, token="hf_x")
    assert hub.files(REPO) == {}, "nothing is visible of half a push"
    arrived = set(hub.large)
    assert len(arrived) == 1
    hub.broken.clear()
    hub.puts.clear()
    push_run(hub_run, REPO, with_predictions=True, endpoint=hub.url, token="hf_x")
    assert hub.puts == [cut], "what had arrived is not sent again"
    assert names(plan) == set(hub.files(REPO))


def test_what_belongs_to_the_model_is_pushed_with_it(hub_run, hub, pictures):
    push_run(hub_run, REPO, endpoint=hub.url, token="hf_x")
    sent = json.loads(hub.files(REPO)["fairtune.json"])
    assert sent["id2label"] == {"0": "benign", "1": "sick"}
    assert sent["base"]["id"] == "google/vit-base"
    assert set(sent["groups"]) == {"F", "M"}
    assert sent["operating_point"]["threshold"] == 0.5
    processor = json.loads(hub.files(REPO)["preprocessor_config.json"])
    assert processor["crop_size"] == {"height": 32, "width": 32}
    assert processor["image_mean"] == sent["input"]["image_mean"]


def test_an_adapter_of_an_earlier_release_is_described_by_its_run(hub_run, hub):
    """It has neither of the two files, and those who load it from the Hub need them."""
    fed = {"image_size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    change(hub_run, model=dataclasses.replace(HUB_MODEL, input=fed))
    before = {f.name: f.content for f in plan_push(hub_run, REPO).files}
    for name in ("fairtune.json", "preprocessor_config.json"):
        (hub_run / "adapter" / name).unlink(missing_ok=True)
    after = {f.name: f.content for f in plan_push(hub_run, REPO).files}
    assert after["preprocessor_config.json"] == before["preprocessor_config.json"]
    told, right = json.loads(after["fairtune.json"]), json.loads(before["fairtune.json"])
    for name in ("id2label", "input", "sensitive", "seed"):
        assert told[name] == right[name], name
    assert told["base"]["id"] == right["base"]["id"]


def test_nobody_sees_a_push_that_was_not_said_to_be_public(hub_run, hub):
    push_run(hub_run, REPO, endpoint=hub.url, token="hf_x")
    assert hub.repos[REPO]["private"]
    push_run(hub_run, "org/other", private=False, endpoint=hub.url, token="hf_x")
    assert not hub.repos["org/other"]["private"]


@pytest.mark.parametrize(
    ("flags", "kind"), [([], "private"), (["--private"], "private"), (["--public"], "public")]
)
def test_the_command_is_private_unless_public_is_said(hub_run, capsys, flags, kind):
    given = ["push", f"--run={hub_run}", f"--repo-id={REPO}", "--dry-run", *flags]
    assert main(given) == 0
    assert f"{REPO} ({kind})" in capsys.readouterr().out


def test_private_and_public_is_bad_input(hub_run, capsys):
    given = ["push", f"--run={hub_run}", f"--repo-id={REPO}", "--dry-run", "--private", "--public"]
    assert main(given) == 2
    assert "--private, --public: expected one of them" in capsys.readouterr().err


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_that_others_see_than_was_asked_for_is_refused(hub_run, hub, private):
    hub.repos[REPO] = {"private": not private, "sha": "0" * 40, "files": {}}
    found = "public" if private else "private"
    with pytest.raises(ValueError, match=f"exists and is {found}"):
        push_run(hub_run, REPO, private=private, endpoint=hub.url, token="hf_x")
    assert hub.files(REPO) == {}


def test_a_local_base_is_pushed_or_refused(run, tiny_vit, hub, tmp_path):
    with pytest.raises(ValueError, match="--with-base"):
        push_run(run, REPO, endpoint=hub.url)
    with pytest.raises(ValueError, match="add --base-dir"):
        push_run(run, REPO, with_base=True, endpoint=hub.url)
    other = Path(shutil.copytree(tiny_vit, tmp_path / "other"))
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match="other weights"):
        push_run(run, REPO, with_base=True, base_dir=other, endpoint=hub.url)
    assert hub.requests == []
    push_run(run, REPO, with_base=True, base_dir=tiny_vit, endpoint=hub.url, token="hf_x")
    assert set(hub.files(f"{REPO}-base")) >= {"config.json", "model.safetensors"}
    config = json.loads(hub.files(REPO)["adapter_config.json"])
    assert config["base_model_name_or_path"] == f"{REPO}-base"
    assert config["revision"] == hub.repos[f"{REPO}-base"]["sha"]


def test_a_base_that_is_on_the_hub_is_not_pushed(hub_run, tiny_vit):
    with pytest.raises(ValueError, match="Leave --with-base out"):
        plan_push(hub_run, REPO, with_base=True, base_dir=tiny_vit)


@pytest.mark.parametrize(
    ("name", "content"),
    [("optimizer.pt", b"x"), ("extra.json", b"\x80\x04x"), ("extra.safetensors", b"PK\x03\x04")],
)
def test_pickles_are_refused(hub_run, name, content):
    (hub_run / "adapter" / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        plan_push(hub_run, REPO)


def test_patient_and_row_ids_are_refused(hub_run):
    row = pd.read_parquet(hub_run / "predictions.parquet")["row_id"].iloc[0]
    for words in (f"Picture {row} is very dark.", f"{row}"):
        change(hub_run, warnings=["Fine.", words])
        with pytest.raises(ValueError, match=r"run\.json, warnings\[1\]: names 1 row") as refused:
            plan_push(hub_run, REPO)
        assert row not in str(refused.value)
    change(hub_run, warnings=[], more={"search_of": {"patient_id": ["P1"]}})
    with pytest.raises(ValueError, match="patient_id"):
        plan_push(hub_run, REPO)


def test_ids_of_training_rows_are_refused(hub_run, pictures):
    """They have no prediction: the data set's own tables tell them."""
    table = pd.read_csv(pictures / "metadata.csv")
    patient = table.loc[table["part"] == "train", "person"].iloc[0]
    table["person"] = [f"Müller-{person:03d}" for person in table["person"]]
    table.to_csv(pictures / "metadata.csv", index=False)
    config = yaml.safe_load((hub_run / "config.yaml").read_text())
    (hub_run / "config.yaml").write_text(yaml.safe_dump(config | {"data_root": str(pictures)}))
    plan_push(hub_run, REPO)
    change(hub_run, warnings=[f"Müller-{patient:03d} is very dark."])
    with pytest.raises(ValueError, match=r"warnings\[0\]: names 1 row or patient id"):
        plan_push(hub_run, REPO)
    change(hub_run, warnings=[])
    (hub_run / "config.yaml").unlink()
    assert "config.yaml does not name one" in plan_push(hub_run, REPO).render()


def test_names_of_pictures_are_refused_wherever_they_come_from(hub_run):
    """A picture that was left out is in no table."""
    change(hub_run, warnings=["left out: Meyer_1931.PNG is not a picture"])
    with pytest.raises(ValueError, match=r"warnings\[0\]: names a picture file"):
        plan_push(hub_run, REPO)


def test_an_id_of_digits_is_a_word_of_a_string_and_not_any_number():
    texts = {
        "run.json": b'{"n": 10005, "a": {"words": "0.10005 and 10005.5 and x10005"}}',
        "README.md": b"10005 pictures",
    }
    check_no_ids(texts, {"10005"}, source="run.json")
    texts["run.json"] = b'{"a": {"words": ["fine", "Row 10005."]}}'
    with pytest.raises(ValueError, match=r"^run\.json, a\.words\[1\]: names 1 row or patient id"):
        check_no_ids(texts, {"10005"}, source="run.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", r"row a\_b\|c&lt;7"),
        ("report.html", "<p>row a_b|c&lt;7</p>"),
        ("run.json", r'{"a_b|c<7": "\u00fc"}'),
    ],
)
def test_an_id_is_found_behind_escapes(name, text):
    with pytest.raises(ValueError, match=rf"^{name}.*: names 1 row"):
        check_no_ids({name: text.encode()}, {"a_b|c<7"}, source="run.json")


def test_predictions_go_without_ids_and_only_when_asked(hub_run):
    assert "predictions.parquet" not in names(plan_push(hub_run, REPO))
    plan = plan_push(hub_run, REPO, with_predictions=True)
    content = next(f for f in plan.files if f.name == "predictions.parquet").content
    table = pd.read_parquet(io.BytesIO(content))
    assert set(table.columns) == {"seed", "split", "label", "score", "sex"}
    own = pd.read_parquet(hub_run / "predictions.parquet")
    assert len(table) == len(own)
    assert sorted(table["score"]) == sorted(own["score"])
    turned = own.iloc[::-1]
    turned.to_parquet(hub_run / "predictions.parquet", index=False)
    plan = plan_push(hub_run, REPO, with_predictions=True)
    again = next(f for f in plan.files if f.name == "predictions.parquet").content
    assert again == content, "nothing is left of the order of the rows"


def test_predictions_of_small_groups_alone_are_refused(run):
    change(run, model=HUB_MODEL)
    with pytest.raises(ValueError, match="fewer than ten people"):
        plan_push(run, REPO, with_predictions=True)


def test_folders_of_this_machine_are_not_told(hub_run):
    with RunFolder(hub_run).editing() as record:
        record.dataset.options = {"splits_file": "/home/someone/secret/splits.csv"}
    for file in plan_push(hub_run, REPO).files:
        content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        assert b"/home/someone" not in content, file.name
        if file.name in {"run.json", "README.md"}:
            assert b"splits.csv" in content


def pushed_record(run):
    return json.loads(next(f for f in plan_push(run, REPO).files if f.name == "run.json").content)


def test_counts_of_small_groups_are_hidden_in_the_record(hub_run):
    """The AUC is not: the headline is made of it. Nor are the next smallest group's counts shown."""
    tiny = {"n": 7, "positives": 3, "auc": 0.75, "auc_ci": [0.3, 1.0], "tpr": 0.33}
    other = {"n": 400, "positives": 395, "auc": 0.7, "auc_ci": [0.6, 0.8]}
    with RunFolder(hub_run).editing() as record:
        test = record.own.result("test")
        test.groups |= {n: read_as(GroupResult, g) for n, g in (("tiny", tiny), ("other", other))}
        test.warnings = ["Group tiny has 7 rows."]
    groups = json.loads((hub_run / "run.json").read_text())["test"]["groups"]
    sent = pushed_record(hub_run)["test"]
    assert sent["groups"]["tiny"] == {
        "n": "<10", "positives": "<10", "auc": 0.75, "auc_ci": [0.3, 1.0], "tpr": None,
    }  # fmt: skip
    assert sent["warnings"] == ["Group tiny has <10 rows."]
    assert sent["groups"]["other"] == groups["other"] | {"positives": "all but <10"}
    people = read_run(hub_run).people("test")
    second = min(people, key=people.get)
    words = {"n": "not shown", "positives": "not shown"}
    assert sent["groups"][second] == groups[second] | words
    assert {sent["groups"][name]["n"] for name in people} == {
        "not shown",
        *(groups[name]["n"] for name in people if name != second),
    }


def test_counts_of_small_groups_are_hidden_in_what_is_said_of_the_data(hub_run):
    train = {
        "F": {"n": 60, "positives": 4, "n_patients": 20},
        "M": {"n": 500, "positives": 200, "n_patients": 170},
        "X": {"n": 30, "positives": 15, "n_patients": 12},
        "tiny": {"n": 14, "positives": 3, "n_patients": 7},
    }
    with RunFolder(hub_run).editing() as record:
        record.dataset.counts["train"] = read_as(dict[str, GroupCounts], train)
        record.dataset.n_patients["validation"] = 8
    sent = pushed_record(hub_run)["dataset"]
    counts, own = sent["counts"]["train"], train
    assert counts["tiny"] == {"n": "<10", "positives": "<10", "n_patients": "<10"}
    assert counts["X"] == {"n": "not shown", "positives": "not shown", "n_patients": "not shown"}
    assert counts["F"] == own["F"] | {"positives": "<10"}
    assert counts["M"] == own["M"]
    assert sent["n_patients"]["validation"] == "<10"


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "a/../b", "../b", "a/"])
def test_wrong_repo_ids_are_refused(hub_run, repo_id):
    with pytest.raises(ValueError, match="organisation/name"):
        plan_push(hub_run, repo_id)


def test_unfinished_runs_are_refused(hub_run):
    with RunFolder(hub_run).editing() as record:
        record.forget_evaluation()
    with pytest.raises(ValueError, match="fairtune evaluate"):
        plan_push(hub_run, REPO)


def test_a_run_without_adapter_is_refused(hub_run):
    (hub_run / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors"):
        plan_push(hub_run, REPO)


def test_an_unreachable_hub_is_a_connection_error(hub_run, hub):
    hub.close()
    with pytest.raises(ConnectionError, match="did not end"):
        push_run(hub_run, REPO, endpoint=hub.url, token="hf_x")


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "log in with"), (403, "check that the token may write"), (500, "Run the same command")],
)
def test_a_refused_push_says_what_helps_and_what_is_visible(run, tiny_vit, hub, status, advice):
    hub.refused[REPO] = status
    with pytest.raises(ConnectionError, match=advice) as refused:
        push_run(run, REPO, with_base=True, base_dir=tiny_vit, endpoint=hub.url, token="hf_x")
    assert hub.files(f"{REPO}-base"), "the base model came first and is there"
    assert hub.files(REPO) == {}
    assert "has all of them or none" in str(refused.value)
    assert f"The base model has arrived at {REPO}-base" in str(refused.value)
    assert ("Run the same command again" in str(refused.value)) is (status == 500)
