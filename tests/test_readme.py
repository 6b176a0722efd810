"""The README's code runs, and its head is what a newcomer needs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fairtune_hf import Mask, group_metrics
from tests.conftest import draw_folder

README = Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


TO_A_PREDICTION = 1  # its search and refits take half a minute


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(i, marks=[pytest.mark.slow] if i == TO_A_PREDICTION else [])
        for i in range(len(SNIPPETS))
    ],
)
def test_snippets_run(
    index: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    if "pictures/" in SNIPPETS[index]:
        root = draw_folder(tmp_path / "pictures")
        rows = pd.read_csv(root / "metadata.csv").rename(columns={"person": "patient"})
        rows.drop(columns="part").to_csv(root / "metadata.csv", index=False)
        shutil.copy(root / "p059_0.png", "new.png")
    exec(compile(SNIPPETS[index], f"README snippet {index}", "exec"), namespace)
    if "trainer" in namespace:
        best = namespace["best"]
        assert 0.0 <= best.objective <= 1.0
        saved = json.loads((tmp_path / "runs/plain/best/adapter_config.json").read_text())
        bits = [best.hyperparameters[name] for name in namespace["hp_space"].space.bit_names]
        assert Mask.parse(saved["mask"], layout=saved["layout"], blocks=12) == Mask.parse(
            bits, layout="block3", blocks=12
        )
    elif "predict" in namespace:
        printed = capsys.readouterr().out.splitlines()[-1]
        assert printed.startswith("[Prediction(score=0.")
        assert namespace["predict"].groups.keys() == {"F", "M"}
    elif "metric" in namespace:
        # The metric against the table itself, which the data set was made of.
        test = namespace["table"].subset("test")
        darkness = 255 - test.images.mean(axis=(1, 2, 3))
        right = group_metrics(test.labels, darkness, sensitive_features=test.group_names)
        assert namespace["found"]["min_auc"] == pytest.approx(right.min_auc, abs=1e-12)
    else:
        assert namespace["loaded"].peft_type.value == "FAIRMASK"


def test_the_first_sixty_lines_hold_what_a_newcomer_needs() -> None:
    head = "\n".join(README.read_text(encoding="utf-8").splitlines()[:60])
    for word in (
        "make demo",
        "make test",
        "get_peft_model",
        "pip install",
        "Not a medical device",
        "binary",
    ):
        assert word in head, word


def test_there_are_four_snippets_and_the_second_goes_to_a_prediction_in_fifteen_lines() -> None:
    assert len(SNIPPETS) == 4
    lines = SNIPPETS[TO_A_PREDICTION].strip().splitlines()
    assert len(lines) <= 15
    assert any("search_masks(" in line for line in lines)
    assert lines[-1].startswith("print(predict(")
