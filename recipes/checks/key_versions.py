"""Save adapters with an old transformers, load them with a new one, and the other way round.

    python recipes/checks/key_versions.py [--old 5.8.0] [--new VERSION] [--json FILE]
                                          [--old-python PATH] [--new-python PATH]

transformers 5.9 renamed the modules of its vision transformers; an adapter must not notice. Makes two
environments with uv in a temporary folder (or takes those given), and compares the logits of every
architecture bit for bit in both directions. Some minutes, most of them for installing torch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MASKS = {
    "mixed": {"mask": {"layernorm": "101", "attention": "011", "mlp": "110"}},
    "full": {"mask": "full"},
    "params": {"mask": "100101100010", "layout": "attention_params"},
    "bitfit": {"mask": "bitfit"},
}
ARCHITECTURES = [
    "vit",
    "deit",
    "deit_distilled",
    "dinov2",
    "dinov2_registers",
    "beit",
    "clip_vision",
    "siglip_vision",
    "vit_mae",
    "swin",
    "timm_vit",
    "timm_wrapper",
]


def perturb(model):
    """Give every trained parameter values of its own, the same in every version."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def build_base(zoo, name, folder):
    """The base model: built anew, or what the other version has saved in `folder`."""
    model = zoo.build(name)
    if not hasattr(model, "save_pretrained"):
        return model  # timm's, whose weights come from the seed
    if folder.exists():
        return type(model).from_pretrained(folder).eval()
    model.save_pretrained(folder)
    return model


def what_it_says(zoo, name, model):
    import torch

    with torch.no_grad():
        return zoo.run(model, zoo.images(name))


def write_what_it_says(zoo, name, model, folder):
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"said": what_it_says(zoo, name, model)}, folder / "said.pt")


def save(folder):
    """In the saving version: a base model, adapters, and what they say about some images."""
    import copy

    import peft
    import zoo

    from fairtune_hf.tuner import FairMaskConfig

    for name in ARCHITECTURES:
        base = build_base(zoo, name, folder / name / "base")
        for mask, config in {"base": None, **MASKS}.items():
            if config is None:
                write_what_it_says(zoo, name, base, folder / name)
                continue
            model = peft.get_peft_model(copy.deepcopy(base), FairMaskConfig(**config)).eval()
            perturb(model)
            model.save_pretrained(folder / name / mask)
            write_what_it_says(zoo, name, model, folder / name / mask)


def load(folder):
    """In the loading version: the largest difference for each architecture and mask, as JSON."""
    import peft
    import torch
    import zoo

    import fairtune_hf.tuner  # noqa: F401

    differences = {}
    for name in ARCHITECTURES:
        for mask in ("base", *MASKS):
            model = build_base(zoo, name, folder / name / "base")
            where = folder / name if mask == "base" else folder / name / mask
            if mask != "base":
                model = peft.PeftModel.from_pretrained(model, where).eval()
            expected = torch.load(where / "said.pt")["said"]
            difference = (what_it_says(zoo, name, model) - expected).abs().max().item()
            differences.setdefault(name, {})[mask] = difference
    print(json.dumps(differences))


def make_environment(folder, transformers_version):
    """Make an environment with uv that differs in nothing but the version of transformers."""
    same = [f"{name}=={version(name)}" for name in ("torch", "torchvision", "peft", "timm")]
    uv = [sys.executable, "-m", "uv"]
    python = folder / "bin" / "python"
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run(
        [*uv, "pip", "install", "-q", "-p", python, f"transformers=={transformers_version}", *same],
        check=True,
    )
    return python


def call(python, job, folder):
    """Run `save` or `load` with the interpreter of an environment; return the last line it prints."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'tuner'}"}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [python, "-W", "ignore", __file__, "--job", job, "--folder", folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().rpartition("\n")[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", default="5.8.0", help="a version before the renaming")
    parser.add_argument("--new", default=version("transformers"), help="a version after it")
    parser.add_argument("--old-python", type=Path, help="an environment that is there already")
    parser.add_argument("--new-python", type=Path, help="an environment that is there already")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--job", choices=["save", "load"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return {"save": save, "load": load}[options.job](options.folder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        old = options.old_python or make_environment(folder / "old", options.old)
        new = options.new_python or make_environment(folder / "new", options.new)
        result = {"old": options.old, "new": options.new}
        for direction, saver, loader in (("old_to_new", old, new), ("new_to_old", new, old)):
            call(saver, "save", folder / direction)
            result[direction] = json.loads(call(loader, "load", folder / direction))
    result |= judge(result)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(result["failed"]))


def judge(result):
    """Where an adapter differs though the base model does not; and where the base model does."""
    failed, base_differs = [], []
    for direction in ("old_to_new", "new_to_old"):
        for name, found in result[direction].items():
            if found["base"]:
                base_differs.append(f"{direction} {name} {found['base']:.1e}")
            elif any(found.values()):
                failed.append(f"{direction} {name}")
    return {"identical": not failed, "failed": failed, "base_model_itself_differs": base_differs}


if __name__ == "__main__":
    sys.exit(main())
