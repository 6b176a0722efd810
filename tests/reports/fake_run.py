"""Draws a run's folder that looks like a real one: trials, curves, refits, controls.

The scores are synthetic, the metrics are the package's own. Patient codes start at 7_000_000, so
that a test can search a page for them.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fairtune_hf.metrics import compare_predictions, evaluate_predictions
from fairtune_hf.plain_data import read_as
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import ChoiceRecord

PARTS = ("layernorm", "attention", "mlp")
BIT_NAMES = [f"blocks.{block}.{part}" for block in range(12) for part in PARTS]
PRESETS = {
    "linear_readout": "0" * 36,
    "attention": "010" * 12,
    "layernorm": "100" * 12,
    "mlp": "001" * 12,
    "full_blocks": "1" * 36,
}
FIRST_PATIENT = 7_000_000


def draw_predictions(
    groups: dict[str, tuple[int, float]],
    *,
    lift: float = 0.0,
    seeds: int = 3,
    sensitive: str = "skin_type",
    master: int = 0,
) -> pd.DataFrame:
    """Draw scores; each group has (rows per split, separation of its classes)."""
    rng = np.random.default_rng(master)
    frames = []
    patient = FIRST_PATIENT
    for split in ("validation", "test"):
        for name, (rows, separation) in groups.items():
            label = (rng.random(rows) < 0.35).astype(int)
            label[: min(2, rows)] = [0, 1][: min(2, rows)]
            base = rng.normal(size=rows) + separation * label
            patients = patient + np.arange(rows) // 2
            patient = int(patients.max()) + 1
            for seed in range(seeds):
                noise = np.random.default_rng(seed + 100 * master).normal(size=rows) * 0.2
                score = 1 / (1 + np.exp(-(base + lift * label + noise - 0.8)))
                frames.append(
                    pd.DataFrame(
                        {
                            "row_id": [f"{split}-{name}-{i}" for i in range(rows)],
                            "seed": seed,
                            "split": split,
                            "label": label,
                            "score": score,
                            "patient": patients,
                            sensitive: name,
                        }
                    )
                )
    return pd.concat(frames, ignore_index=True)


def draw_trials(number: int = 14, epochs: int = 6, master: int = 0, small_is_good: bool = False):
    """Draw a search: the presets first, then sampled masks; some pruned, one failed.

    Where small is good, the value of a trial is 1 minus what it is else.
    """
    rng = np.random.default_rng(master)
    trials, curves = [], []
    presets = list(PRESETS.items())
    for trial in range(number):
        preset, mask = presets[trial] if trial < len(presets) else ("", None)
        if mask is None:
            mask = "".join(rng.choice(["0", "1"], 36))
        top = 0.62 + 0.14 * (1 - np.exp(-mask.count("1") / 8)) + rng.normal() * 0.015
        state = "FAIL" if trial == 9 else "PRUNED" if trial % 5 == 3 else "COMPLETE"
        ran = {"FAIL": 0, "PRUNED": 3, "COMPLETE": epochs}[state]
        values = [0.5 + (top - 0.5) * (1 - np.exp(-(e + 1) / 2)) for e in range(ran)]
        values = [float(v + rng.normal() * 0.006) for v in values]
        for epoch, value in enumerate(values, start=1):
            loss = 0.6 - 0.2 * value
            curves.append((trial, epoch, value, value + 0.05, loss, value + 0.09, value))
        done = state == "COMPLETE"
        trials.append(
            {
                "number": trial,
                "state": state,
                "value": values[-1] if values else None,
                "learning_rate": float(10 ** rng.uniform(-4, -2.5)),
                "mask": mask,
                "preset": preset,
                "epochs": ran,
                "seconds": 4.0 * ran,
                "overall_auc": values[-1] + 0.05 if values else None,
                "auc_gap": 0.08 if done else None,
            }
        )
    columns = ["number", "epoch", "value", "overall_auc", "loss", "auc_light", "auc_dark"]
    tables = pd.DataFrame(trials), pd.DataFrame(curves, columns=columns)
    if small_is_good:
        for table in tables:
            table["value"] = 1 - table["value"]
    return tables


def measured(frame: pd.DataFrame, sensitive: str):
    """Measure the validation and test part and every seed, as the evaluation does."""
    seeds = []
    for seed in sorted(frame["seed"].unique()):
        one = frame[frame["seed"] == seed]
        parts = {
            split: evaluate_predictions(
                one[one["split"] == split], sensitive=sensitive, n_resamples=200
            )
            for split in ("validation", "test")
        }
        seeds.append({"seed": int(seed), **parts})
    return {"validation": seeds[0]["validation"], "test": seeds[0]["test"], "seeds": seeds}


def comparison(own: pd.DataFrame, other: pd.DataFrame, reference: str, sensitive: str):
    result = compare_predictions(
        own[own["split"] == "test"],
        other[other["split"] == "test"],
        sensitive=sensitive,
        n_resamples=200,
    )
    return {
        "method": "fairtune",
        "reference": reference,
        "split": "test",
        "metric": "min_auc",
        "difference": result.difference,
        # As in a run's own record: null where there is none.
        "ci": [None if np.isnan(bound) else bound for bound in result.ci],
        "p_value": None if np.isnan(result.p_value) else result.p_value,
        "n_seeds": result.n_seeds,
        "n_patients": result.n_patients,
        "levelling_down": result.levelling_down,
        "group_differences": result.group_differences,
    }


def write_fake_run(
    path: Path,
    *,
    stage: str = "evaluated",
    groups: dict[str, tuple[int, float]] | None = None,
    sensitive: str = "skin_type",
    trials: int = 14,
    name: str = "demo",
    master: int = 0,
    directions: dict[str, str] | None = None,
) -> Path:
    """Write a run's folder at the stage `searched` or `evaluated`.

    `directions` are those of the search's objectives, the first of which has the value of a trial.
    """
    directions = directions or {"min_auc": "maximize"}
    small_is_good = next(iter(directions.values())) == "minimize"
    groups = groups or {"light": (240, 1.9), "medium": (160, 1.6), "dark": (60, 1.0)}
    path.mkdir(parents=True, exist_ok=True)
    trial_table, curves = draw_trials(trials, master=master, small_is_good=small_is_good)
    trial_table.to_csv(path / "trials.csv", index=False)
    curves.to_csv(path / "curves.csv", index=False)
    run = dict.fromkeys(
        ["model", "choice", "validation", "test", "seeds", "controls", "comparisons", "verdict"]
    )
    rows = sum(n for n, _ in groups.values())
    run |= {
        "schema_version": 1,
        "dataset": {
            "name": name,
            "sensitive": sensitive,
            "rows": {"train": 900, "validation": rows, "test": rows},
            "n_patients": {"train": 450, "validation": rows // 2, "test": rows // 2},
            "counts": {
                split: {
                    group: {"n": n, "positives": n // 3, "n_patients": n // 2}
                    for group, (n, _) in groups.items()
                }
                for split in ("train", "validation", "test")
            },
            "split_hash": "3f" * 32,
            "groups": list(groups),
            "label_names": ["benign", "malignant"],
            "options": {"image_size": 64, "seed": 0},
            "dropped": {"label missing": 4, "unreadable picture": 12},
        },
        "model": {"id": "fairtune_hf/demo-backbone", "revision": None, "sha256": "ab" * 32},
        "search": {
            "trials": len(trial_table),
            "completed": int(trial_table["state"].eq("COMPLETE").sum()),
            "pruned": int(trial_table["state"].eq("PRUNED").sum()),
            "failed": int(trial_table["state"].eq("FAIL").sum()),
            "trained_epochs": int(trial_table["epochs"].sum()),
            "seconds": float(trial_table["seconds"].sum()),
            "sampler": "TPESampler(seed=0)",
            "pruner": "PercentilePruner",
            "objective": ",".join(directions),
            "directions": directions,
            "optimism": 0.011,
        },
        "versions": {"python": "3.11.7", "torch": "2.15.0", "peft": "0.21.2"},
        "hardware": {"processor": "x86_64", "cores": 2},
        "warnings": ["Group 'dark' has few rows: its interval is wide."],
    }
    if stage == "evaluated":
        ranked = trial_table[trial_table["state"].eq("COMPLETE")].sort_values("value")
        _refit(path, run, ranked.iloc[0 if small_is_good else -1], groups, sensitive, master)
    (path / "run.json").write_text(json.dumps(run, indent=1))
    return path


def _refit(path, run, best, groups, sensitive, master):
    own = draw_predictions(groups, lift=0.35, sensitive=sensitive, master=master)
    run |= measured(own, sensitive)
    run["choice"] = {
        "mask": best["mask"],
        "layout": "block3",
        "bit_names": BIT_NAMES,
        "learning_rate": float(best["learning_rate"]),
        "epochs": 6,
        "schedule": "cosine",
        "batch_size": 64,
        "precision": "fp32",
        "seed": 0,
        "selected_by": "highest validation min_auc of 10 complete trials",
        "trial": int(best["number"]),
    }
    RunFolder(path).write_refits(own, read_as(ChoiceRecord, run["choice"]))
    run["controls"], run["comparisons"] = {}, []
    for reference, lift in {"full_blocks": 0.3, "linear_readout": -0.9}.items():
        other = draw_predictions(groups, lift=lift, sensitive=sensitive, master=master)
        recipe = {
            "mask": PRESETS[reference],
            "layout": "block3",
            "learning_rate": 3e-4,
            "epochs": 6,
        }
        run["controls"][reference] = recipe | {"trial": None, **measured(other, sensitive)}
        control = RunFolder(path).control(reference)
        control.write_refits(other, read_as(ChoiceRecord, recipe))
        run["comparisons"].append(comparison(own, other, reference, sensitive))
