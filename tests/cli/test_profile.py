"""`fairtune profile` on a recipe, and what it advises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fairtune_hf.cli.main import main
from fairtune_hf.training.clock import PARTS
from fairtune_hf.training.profile import Profile, _warm_up_steps, advise


def test_a_recipe_is_profiled_and_nothing_is_written(
    folder_flags: list[str],
    tiny_vit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("trials: 7\nepochs: 2\nbatch_size: 16\npruner: none\n")
    words = ["profile", f"--config={recipe}", *folder_flags, f"--model={tiny_vit}", "--steps=4"]
    assert main([*words, "--mask=attention", "--search-epochs=2,5"]) == 0
    shown = capsys.readouterr().out
    parts = {words[0]: float(words[1]) for line in shown.splitlines() if (words := line.split())
             and words[0] in (*PARTS, "all")}  # fmt: skip
    assert set(parts) == {*PARTS, "all"}
    assert parts["all"] == pytest.approx(sum(parts[part] for part in PARTS), abs=0.01)
    assert "4 of them measured" in shown
    assert "A training of 5 epochs" in shown  # the longest of those to be searched
    assert "7 of them" in shown
    assert "No GPU was used" in shown
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_mask_of_another_length_is_refused(
    folder_flags: list[str], tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", *folder_flags, f"--model={tiny_vit}", "--mask=01"]) == 2
    assert "--mask" in capsys.readouterr().err


def make_profile(seconds: dict[str, float], **cost: object) -> Profile:
    return Profile(
        steps=20,
        steps_an_epoch=100,
        seconds={**dict.fromkeys(PARTS, 0.0), **seconds},
        cost={"precision": "bf16", "compiled": False, "peak_memory_gib": 70.0, **cost},
        rows=12800,
        batch_size=128,
        evaluation_batch_size=256,
        evaluation_rows=1600,
        memory_gib=80.0,
    )


@pytest.mark.parametrize(
    ("profile", "pays", "expected"),
    [
        (make_profile({"forward": 1, "backward": 2}), False, []),
        (make_profile({"forward": 1, "backward": 2}), True, ["--compile on"]),
        (make_profile({"forward": 1, "data": 1}), False, ["Data take 50%"]),
        (make_profile({"forward": 1, "evaluation": 1}), False, ["per_device_eval_batch_size"]),
        (
            replace(make_profile({"forward": 1, "evaluation": 1}), evaluation_rows=256),
            False,
            ["50%: check the size of the validation split."],
        ),
        (make_profile({"forward": 1, "other": 1}), False, ["--batch-size"]),
        (make_profile({"forward": 1}, precision="fp32"), False, ["--precision bf16"]),
        (make_profile({"forward": 1}, peak_memory_gib=9.0), False, ["9 of 80 GiB"]),
    ],
)
def test_advice(profile: Profile, pays: bool, expected: list[str]) -> None:
    found = advise(profile, compiling_pays=pays)
    assert len(found) == len(expected)
    assert all(words in sentence for words, sentence in zip(expected, found, strict=True))


def test_small_models_have_warmed_up_when_each_size_of_batch_has_come_four_times() -> None:
    def sizes(steps: int, steps_an_epoch: int) -> list[int]:
        rests = steps // steps_an_epoch
        return [steps - rests, rests]

    for steps_an_epoch in (1, 2, 3, 10):
        warm_up = _warm_up_steps(steps_an_epoch, on_gpu=True)
        assert all(n == 0 or n >= 4 for n in sizes(warm_up, steps_an_epoch))
    assert _warm_up_steps(200, on_gpu=True) == 5
    assert _warm_up_steps(10, on_gpu=False) == 3
