"""A run's export gives the run's scores without this package, or is not written."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, pipeline

from fairtune_hf import load_predictor
from fairtune_hf.cli.main import main
from fairtune_hf.export import Bounds, ExportRefused, Request, export_run
from fairtune_hf.export.preparation import open_picture, prepare
from fairtune_hf.inference import Predictor
from fairtune_hf.run_folder import RunFolder
from tests.inference.mixed import draw_mixed, own_scores, train_by_hand
from tests.training.checkpoints import FAMILIES


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mixed(tmp_path_factory.mktemp("mixed") / "set")


@pytest.fixture(scope="module")
def run(mixed: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = train_by_hand(mixed, tiny_vit, tmp_path_factory.mktemp("runs") / "run")
    assert main(["evaluate", f"--run={out}", "--resamples=50"]) == 0
    return out


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "tf"
    assert main(["export", f"--run={run}", f"--out={out}"]) == 0
    return out


def files_of_test(run: Path) -> list[str]:
    return [file.name for file in own_scores(run, run)[0]]


def right_scores(run: Path, names: list[str]) -> np.ndarray:
    found = dict(zip(files_of_test(run), own_scores(run, run)[1], strict=True))
    return np.array([found[name] for name in names])


def given_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "export.json").read_text())["input"])


def through_pipeline(folder: Path, pictures: list[Any], **words: Any) -> list[float]:
    classify: Any = pipeline("image-classification", model=str(folder), device="cpu", **words)
    return [{one["label"]: one["score"] for one in each}["ill"] for each in classify(pictures)]


def test_the_pipeline_gives_the_runs_scores_of_pictures_of_every_size(
    exported: Path, run: Path, mixed: Path
) -> None:
    names, own = files_of_test(run), load_predictor(run, device="cpu")
    # DICOM is decoded by the product, everything else by the file that comes with the export.
    decoded = [own.decode(mixed / name) if name.endswith("dcm") else mixed / name for name in names]
    pictures = [open_picture(picture, given_of(exported)) for picture in decoded]
    assert {Path(name).suffix for name in names} == {".png", ".jpg", ".dcm"}
    found = through_pipeline(exported, pictures)
    np.testing.assert_allclose(found, right_scores(run, names), rtol=0, atol=1e-5)


def test_the_pipeline_opens_square_files_itself(exported: Path, run: Path, mixed: Path) -> None:
    names = [name for name in files_of_test(run) if int(name[1:3]) % 6 == 0]  # the square ones
    by_pillow = AutoImageProcessor.from_pretrained(exported, backend="pil")
    files = [str(mixed / name) for name in names]
    found = through_pipeline(exported, files, image_processor=by_pillow)
    np.testing.assert_allclose(found, right_scores(run, names), rtol=0, atol=1e-5)


def test_the_export_says_what_belongs_to_it_and_nothing_of_this_machine(
    exported: Path, run: Path, mixed: Path
) -> None:
    told = json.loads((exported / "export.json").read_text())
    assert told["id2label"] == {"0": "well", "1": "ill"}
    assert told["operating_point"]["threshold"] == load_predictor(run).threshold
    assert set(told["groups"]) == {"F", "M"}
    assert told["groups"]["F"]["positives"] == "<10"
    assert max(check["largest_difference"] for check in told["checks"]) < 1e-5
    config = json.loads((exported / "config.json").read_text())
    assert config["id2label"] == {"0": "well", "1": "ill"}
    assert "open_picture" in (exported / "README.md").read_text()
    assert {file.name for file in exported.iterdir()} == {
        "README.md", "config.json", "export.json", "model.safetensors", "preparation.py", "preprocessor_config.json",
    }  # fmt: skip
    for file in exported.iterdir():
        content = file.read_bytes()
        assert str(run.parent).encode() not in content, file.name
        assert str(mixed).encode() not in content, file.name
        assert b"p01.jpg" not in content, file.name


@pytest.mark.slow
def test_the_export_opens_without_peft_and_without_this_package(
    exported: Path, run: Path, mixed: Path
) -> None:
    names = [name for name in files_of_test(run) if not name.endswith("dcm")]
    script = (
        "import json, sys\n"
        "for name in ('peft', 'fairtune_hf', 'timm', 'accelerate', 'datasets'): sys.modules[name] = None\n"
        "folder, root, *names = sys.argv[1:]\n"
        "sys.path.insert(0, folder)\n"
        "from preparation import open_picture\n"
        "from transformers import pipeline\n"
        "classify = pipeline('image-classification', model=folder, device='cpu')\n"
        "found = classify([open_picture(f'{root}/{name}') for name in names])\n"
        "print(json.dumps([{one['label']: one['score'] for one in each}['ill'] for each in found]))\n"
    )
    words = [sys.executable, "-B", "-c", script, str(exported), str(mixed), *names]
    told = subprocess.run(words, check=True, capture_output=True, timeout=300, text=True)
    found = json.loads(told.stdout.strip().splitlines()[-1])
    np.testing.assert_allclose(found, right_scores(run, names), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def parts(run: Path) -> tuple[Predictor, RunFolder, Any]:
    from fairtune_hf.cli.export import _load_test

    own = load_predictor(run, device="cpu")
    return own, RunFolder(run), _load_test(RunFolder(run), own, None)


class _Other(Predictor):
    """A model that merges into another one than it is."""

    def merged_model(self) -> Any:
        model = super().merged_model()
        with torch.no_grad():
            model.classifier.bias.add_(torch.tensor([0.0, 1e-3]))
        return model


def test_an_export_with_other_scores_is_refused_and_leaves_nothing(
    parts: tuple[Predictor, RunFolder, Any], tmp_path: Path
) -> None:
    own, folder, table = parts
    other = _Other(own.model, own.described, device=own.device)
    with pytest.raises(ExportRefused, match="differ by at most 1e-05"):
        export_run(other, folder, table, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_refused_export_leaves_the_earlier_one(
    parts: tuple[Predictor, RunFolder, Any], tmp_path: Path
) -> None:
    own, folder, table = parts
    export_run(own, folder, table, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    (tmp_path / ".out.999999999.partial").mkdir()  # of a process that was killed
    other = _Other(own.model, own.described, device=own.device)
    with pytest.raises(ExportRefused):
        export_run(other, folder, table, tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_mean_that_is_not_the_runs_is_refused(
    parts: tuple[Predictor, RunFolder, Any], tmp_path: Path
) -> None:
    own, folder, table = parts
    other = Predictor(own.model, own.described, device=own.device)
    other.image_mean = (0.485, 0.456, 0.406)
    with pytest.raises(ValueError, match="the same image_mean"):
        export_run(other, folder, table, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_half_precision_is_stored_and_not_computed_with(
    parts: tuple[Predictor, RunFolder, Any], tmp_path: Path
) -> None:
    own, folder, table = parts
    told = export_run(own, folder, table, tmp_path / "out", Request(half="float16"))
    stored = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert b'"F16"' in stored
    assert b'"F32"' not in stored
    classify: Any = pipeline("image-classification", model=str(tmp_path / "out"), device="cpu")
    assert classify.model.dtype == torch.float32
    groups = told["groups_after_export"]["groups"]
    assert set(groups) == {"F", "M"}
    assert all(abs(group["mean_shift"]) < 1e-3 for group in groups.values())


def test_a_group_that_loses_more_than_it_may_is_named(
    parts: tuple[Predictor, RunFolder, Any], tmp_path: Path
) -> None:
    own, folder, table = parts
    with pytest.raises(ExportRefused, match="group F: mean score moves by"):
        export_run(
            own, folder, table, tmp_path / "out", Request(half="bfloat16", bounds=Bounds(shift=0))
        )
    assert not list(tmp_path.iterdir())


def test_what_does_not_go_together_is_bad_input(
    run: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for words, answer in {
        ("--out=x", "--format=onxx"): "expected one of transformers, onnx, torch",
        ("--out=x", "--int8"): "--int8: expected --format onnx",
        ("--out=x", "--format=torch", "--half=float16"): "--half: expected --format transformers",
        ("--out=x", "--half=float8"): "--half: expected one of",
        ("--out=x", "--batch-size=0"): "--batch-size: expected 1 or more",
        (f"--out={tmp_path / 'other'}",): "holds other files",
        (f"--out={exported}",): "Add --overwrite",
        (): "--out: expected the folder to export into",
    }.items():
        assert main(["export", f"--run={run}", *words]) == 2
        assert answer in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


KINDS = {
    "vit": ["--layout=block4", "--mask=" + "0110" * 3],
    "dinov2": ["--mask=layernorm", "--transforms=paper"],
    "swin": ["--mask=mlp"],
    "clip": ["--layout=block", "--mask=101"],
    "timm_vit": ["--mask=full_blocks"],
}


@pytest.fixture(scope="module", params=KINDS)
def of_family(
    request: pytest.FixtureRequest, mixed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param][0](folder / "base")
    run = train_by_hand(mixed, folder / "base", folder / "run", *KINDS[request.param])
    return request.param, run


def test_the_pipeline_of_every_architecture_gives_the_runs_scores(
    of_family: tuple[str, Path], mixed: Path, tmp_path: Path
) -> None:
    kind, run = of_family
    out = tmp_path / "out"
    assert main(["export", f"--run={run}", f"--out={out}"]) == 0
    names = [name for name in files_of_test(run) if not name.endswith("dcm")]
    pictures = [open_picture(mixed / name, given_of(out)) for name in names]
    found = through_pipeline(out, pictures)
    np.testing.assert_allclose(found, right_scores(run, names), rtol=0, atol=1e-5)
    assert json.loads((out / "export.json").read_text())["needs_timm"] == (kind == "timm_vit")


@pytest.mark.slow
def test_onnx_of_every_architecture_gives_the_runs_scores(
    of_family: tuple[str, Path], mixed: Path, tmp_path: Path
) -> None:
    import onnxruntime

    _, run = of_family
    out = tmp_path / "out"
    assert main(["export", f"--run={run}", f"--out={out}", "--format=onnx"]) == 0
    names = [name for name in files_of_test(run) if not name.endswith("dcm")]
    values = np.stack([prepare(mixed / name, given_of(out)) for name in names])
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["pixel_values"]
    assert session.get_inputs()[0].shape[0] == "batch"
    for part in (slice(0, 1), slice(0, 3), slice(None)):
        (logits,) = session.run(["logits"], {"pixel_values": values[part]})
        found = 1 / (1 + np.exp(logits[:, 0].astype(float) - logits[:, 1]))
        np.testing.assert_allclose(found, right_scores(run, names)[part], rtol=0, atol=1e-4)


def every_byte(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of an export, and every member of an archive in it."""
    for file in sorted(folder.rglob("*")):
        yield file.name, file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    yield f"{file.name}/{name}", archive.read(name)


@pytest.mark.slow
def test_graphs_hold_no_picture_and_no_path_and_are_equal_from_every_folder(
    parts: tuple[Predictor, RunFolder, Any], run: Path, tmp_path: Path
) -> None:
    """Of a run that lies elsewhere under another name the same bytes come out."""
    import shutil

    own, folder, table = parts
    elsewhere = tmp_path / "a name of its own"
    shutil.copytree(run, elsewhere)
    other = load_predictor(elsewhere, device="cpu")
    values = own.normalise(torch.from_numpy(np.ascontiguousarray(table.images))).numpy()
    for kind in ("onnx", "torch"):
        one, two = tmp_path / f"one-{kind}", tmp_path / "deeper" / f"two-{kind}"
        export_run(own, folder, table, one, Request(format=kind))
        export_run(other, RunFolder(elsewhere), table, two, Request(format=kind))
        first, second = dict(every_byte(one)), dict(every_byte(two))
        assert {name for name in first if first[name] != second.get(name)} == set()
        for name, content in first.items():
            for trace in (
                str(tmp_path),
                str(run.parent),
                "site-packages",
                "stack_trace",
                '.py"',
                "fairtune_hf/",
            ):
                assert trace.encode() not in content, (name, trace)
            for row in range(len(values)):
                for pixels in (values[row], table.images[row]):
                    assert pixels.ravel()[100:164].tobytes() not in content, name


@pytest.mark.slow
def test_weights_of_eight_bits_are_judged_by_group_at_the_batch_that_is_served(
    parts: tuple[Predictor, RunFolder, Any], tmp_path: Path
) -> None:
    import onnxruntime

    own, folder, table = parts
    generous = Bounds(auc_loss=1, shift=1, calibration_loss=1, turned=1)
    request = Request(format="onnx", int8=True, batch_size=4, bounds=generous)
    told = export_run(own, folder, table, tmp_path / "out", request)
    assert told["int8"] == {"per_channel": True, "reduce_range": True}
    after = told["groups_after_export"]
    assert after["scored_at_once"] == 4
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.int8.onnx")
    assert not (tmp_path / "out" / "model.onnx").exists()
    values = own.normalise(torch.from_numpy(np.ascontiguousarray(table.images))).numpy()
    logits = np.concatenate(
        [
            session.run(None, {"pixel_values": values[at : at + 4]})[0]
            for at in range(0, len(values), 4)
        ]
    )
    found = 1 / (1 + np.exp(logits[:, 0].astype(float) - logits[:, 1]))
    for name, group in after["groups"].items():
        rows = (table.frame["sex"] == name).to_numpy()
        right = right_scores(folder.path, list(table.frame["row_id"][rows]))
        assert group["mean_shift"] == pytest.approx((found[rows] - right).mean(), abs=1e-9)
