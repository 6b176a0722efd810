"""What `faults.py` changes: data, weights and settings between two steps, and the bytes of a run's files."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from fault_world import World
from PIL import Image
from safetensors.numpy import load_file, save_file

Alter = Callable[[World, random.Random], None]


def _edit(change: Callable[[pd.DataFrame, random.Random], pd.DataFrame]) -> Alter:
    def alter(world: World, draw: random.Random) -> None:
        file = world.pictures / "metadata.csv"
        change(pd.read_csv(file), draw).to_csv(file, index=False)

    return alter


def _flip_labels(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    rows = draw.sample(range(len(table)), draw.choice([1, 3, len(table) // 3]))
    table.loc[rows, "diagnosis"] = table.loc[rows, "diagnosis"].map(
        {"sick": "benign", "benign": "sick"}
    )
    return table


def _flip_groups(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    chosen = table["person"] == draw.randrange(48)
    table.loc[chosen, "sex"] = table.loc[chosen, "sex"].map({"F": "M", "M": "F"})
    return table


def _merge_patients(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    one = draw.randrange(0, 32)
    return table.replace({"person": {one: one + 4}})  # of the same label, sex and split


def _drop_rows(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    return table.drop(index=draw.sample(range(3 * 48), draw.choice([1, 5])))


def _repeat_row(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    row = table.iloc[[draw.randrange(3 * 36)]]
    return pd.concat([table, row], ignore_index=True)


def _move_split(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    chosen = table["person"] == draw.randrange(36)
    table.loc[chosen, "part"] = "validation"
    return table


def _swap_pictures(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    one, other = draw.sample(range(3 * 48), 2)
    names = table["file_name"].tolist()
    names[one], names[other] = names[other], names[one]
    return table.assign(file_name=names)


def _other_word(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    return table.replace({"diagnosis": {"sick": "zoster"}})


def _repaint(world: World, draw: random.Random) -> None:
    file = draw.choice(sorted(world.pictures.glob("p0[0-3]*.png")))
    generator = np.random.default_rng(draw.getrandbits(32))
    Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)


def _weights(world: World, draw: random.Random) -> None:
    file = world.vit / "model.safetensors"
    tensors = load_file(file)
    name = draw.choice(sorted(name for name in tensors if "classifier" not in name))
    tensors[name] = tensors[name] + np.float32(0.05)
    save_file(tensors, file, metadata={"format": "pt"})


def _in_json(name: str, **parts: object) -> Alter:
    def alter(world: World, draw: random.Random) -> None:
        file = world.vit / name
        file.write_text(json.dumps(json.loads(file.read_text()) | parts))

    return alter


def of_inputs() -> list[tuple[str, Alter]]:
    """Changes of what a run is of, by name."""
    return [
        ("labels flipped", _edit(_flip_labels)),
        ("a patient's group changed", _edit(_flip_groups)),
        ("two patients made one", _edit(_merge_patients)),
        ("rows left out", _edit(_drop_rows)),
        ("a row twice", _edit(_repeat_row)),
        ("a patient moved to validation", _edit(_move_split)),
        ("two pictures swapped", _edit(_swap_pictures)),
        ("another word for a label", _edit(_other_word)),
        ("a picture repainted", _repaint),
        ("a tensor changed", _weights),
        ("layer_norm_eps changed", _in_json("config.json", layer_norm_eps=0.1)),
        ("activation changed", _in_json("config.json", hidden_act="relu")),
        ("image_mean changed", _in_json("preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])),
    ]


def edit_setting(config: Path, draw: random.Random) -> str:
    """Edit a choice-bearing line of config.yaml; return what was done."""
    values = {
        "batch_size": 64,
        "schedule": "constant",
        "seed": 5,
        "weight_decay": 0.3,
        "epochs": 3,
        "transforms": "none",
        "sensitive_column": "part",
        "label_column": "sex",
        "model": "google/vit-base-patch16-224",
    }
    held = yaml.safe_load(config.read_text())
    name = draw.choice(sorted(name for name in values if held.get(name) != values[name]))
    config.write_text(yaml.safe_dump(held | {name: values[name]}, sort_keys=False))
    return f"{name} {values[name]} in config.yaml"


def damage(file: Path, draw: random.Random) -> str:
    """Damage a file; return how."""
    how = draw.choice(
        ["removed", "emptied", "cut", "garbled", "a byte flipped", "a folder in its place"]
    )
    content = bytearray(file.read_bytes())
    if how == "removed":
        file.unlink()
    elif how == "emptied" or not content:
        file.write_bytes(b"")
    elif how == "cut":
        file.write_bytes(content[: draw.randrange(len(content))])
    elif how == "garbled":
        file.write_bytes(draw.randbytes(len(content)))
    elif how == "a byte flipped":
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
    else:
        file.unlink()
        (file / "inside").mkdir(parents=True)
        shutil.copy(__file__, file / "inside")
    return how
