"""Checkpoints as the Hub has them: read whole, refused by name, or fed as their processor says."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as tf
from peft import get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

from fairtune_hf import FairMaskConfig, load_backbone
from fairtune_hf.cli.main import main

_spec = importlib.util.spec_from_file_location(
    "checkpoints", Path(__file__).with_name("checkpoints.py")
)
assert _spec is not None
assert _spec.loader is not None
checkpoints: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(checkpoints)
FAMILIES, SHAPE = checkpoints.FAMILIES, checkpoints.SHAPE


def edit(folder: Path, name: str = "config.json", **values: Any) -> Path:
    file = folder / name
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **values}))
    return folder


def edit_weights(folder: Path, change: Any) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_loaded_whole_and_counted(name: str, tmp_path: Path) -> None:
    folder, sizes = checkpoints.write(name, tmp_path), FAMILIES[name][1]
    stored = load_file(folder / "model.safetensors")
    backbone = load_backbone(folder)
    assert backbone.count_parameters() == sizes
    assert backbone.blocks == 3
    model = backbone.copy_with_new_head()
    side = 56 if name in ("timm_dinov2", "timm_eva") else 64
    assert backbone.image_size == side
    inputs = torch.zeros(2, 3, side, side)
    assert model(pixel_values=inputs).logits.shape == (2, 2)
    if name != "deit_distilled":  # of which transformers trains no loss
        assert model(pixel_values=inputs, labels=torch.tensor([0, 1])).loss.isfinite()
    assert model.config.num_labels == 2
    known = {(tuple(v.shape), v.double().sum().item()) for v in stored.values()}
    heads = ("classifier.", "cls_classifier.", "distillation_classifier.", "head.", "head_dist.")
    for key, value in backbone.model.named_parameters():
        if not any(f".{part}" in f".{key}" for part in heads) or "vision_model.head" in key:
            assert (tuple(value.shape), value.double().sum().item()) in known, key
    for part in ("layernorm", "attention", "mlp"):
        masked = get_peft_model(backbone.copy_with_new_head(), FairMaskConfig(mask=part))
        trained = sum(p.numel() for p in masked.parameters() if p.requires_grad)
        assert trained == sizes[part] + sizes["head"]


def search(folder: Path, out: Path, flags: list[str]) -> int:
    model = [f"--model={folder}", f"--out={out}", "--trials=2", "--epochs=1", "--top-k=0"]
    return main(["search", *flags, *model])


def check_command(
    name: str, folder: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = FAMILIES[name][1]
    assert search(folder, tmp_path / "run", flags) == 0
    said = capsys.readouterr().err
    total = sum(sizes.values())
    parts = ", ".join(f"{part} {count:,}" for part, count in sizes.items())
    assert f"{total:,} parameters ({parts})" in said
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    bits = record["choice"]["mask"]
    assert len(bits) == 9
    if not name.startswith("swin"):  # blocks of one size
        each = [sizes["layernorm"] // 3, sizes["attention"] // 3, sizes["mlp"] // 3]
        trained = sizes["head"] + sum(each[i % 3] for i, bit in enumerate(bits) if bit == "1")
        assert f"It trains {trained:,} of {total:,} parameters." in said
    assert record["model"]["parameters"] == sizes


def test_the_command_says_the_counts(
    folder_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoints.write("timm_siglip", tmp_path / "model")
    check_command("timm_siglip", folder, folder_flags, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"timm_siglip"}))
def test_the_command_runs_on_each_family(
    name: str, folder_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoints.write(name, tmp_path / "model")
    check_command(name, folder, folder_flags, tmp_path, capsys)


def test_a_family_is_refused_in_words_by_the_command(
    folder_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = tf.HieraConfig(embed_dim=16, image_size=[64, 64], depths=[1] * 4, num_heads=[1, 2, 4, 8])
    folder = checkpoints.save(tf.HieraModel(kind), tmp_path / "model")
    assert search(folder, tmp_path / "run", folder_flags) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "'block': 'hiera.encoder.stages.*.layers.*'" in said
    assert "--block-pattern" in said
    assert not (tmp_path / "run").exists()


HIERA = "hiera.encoder.stages.*.layers.*"


@pytest.mark.parametrize(
    "pattern",
    [
        HIERA,
        json.dumps(
            {
                "block": HIERA,
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "attention": "attn",
                "mlp": "mlp",
                "head": "classifier",
            }
        ),
    ],
    ids=["glob", "json"],
)
def test_a_block_pattern_goes_from_the_flag_into_the_adapter(
    pattern: str, folder_flags: list[str], tmp_path: Path
) -> None:
    kind = tf.HieraConfig(embed_dim=16, image_size=[64, 64], depths=[1] * 4, num_heads=[1, 2, 4, 8])
    folder = checkpoints.save(tf.HieraModel(kind), tmp_path / "model")
    backbone = load_backbone(folder, block_pattern=pattern)
    assert backbone.blocks == 4
    widths = [16, 32, 64, 128]
    linear = checkpoints.linear
    # a stage's first block reads the width before it
    befores = [16, 16, 32, 64]
    counts = backbone.count_parameters()
    assert counts["mlp"] == sum(linear(w, 4 * w) + linear(4 * w, w) for w in widths)
    assert counts["layernorm"] == sum(2 * b + 2 * w for b, w in zip(befores, widths, strict=True))
    assert counts["attention"] == sum(
        linear(b, 3 * w) + linear(w, w) for b, w in zip(befores, widths, strict=True)
    )
    assert counts["head"] == linear(128, 2)
    model = get_peft_model(backbone.copy_with_new_head(), FairMaskConfig(mask="mlp"))
    model.save_pretrained(tmp_path / "adapter")
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["block_pattern"]
    assert said == (json.loads(pattern) if pattern.startswith("{") else pattern)


def test_a_block_pattern_that_is_no_json_is_refused(tiny_vit: Path) -> None:
    with pytest.raises(ValueError, match="--block-pattern: expected a glob"):
        load_backbone(tiny_vit, block_pattern="{'block': 'x.*'}")


def plain_vit(folder: Path, **values: Any) -> Path:
    torch.manual_seed(0)
    return Path(
        checkpoints.save(
            tf.ViTForImageClassification(checkpoints.config("ViTConfig", **values)), folder
        )
    )


def without(part: str) -> Any:
    return lambda folder: edit_weights(
        plain_vit(folder), lambda w: {k: v for k, v in w.items() if part not in k}
    )


def narrower(folder: Path) -> Path:
    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k: v[:48].clone() if v.shape[:1] == (64,) else v for k, v in weights.items()}

    return edit_weights(plain_vit(folder), change)


def timm_keys(folder: Path) -> Path:
    checkpoints.config("ViTConfig").save_pretrained(folder)
    network = timm.create_model("vit_base_patch16_224", num_classes=0, **checkpoints.TIMM)
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def gated(folder: Path) -> Path:
    checkpoints.save_timm("vit_base_patch16_224", folder)
    kinds = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    network = timm.create_model("vit_base_patch16_224", num_classes=0, **checkpoints.TIMM, **kinds)
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def timm_size(folder: Path) -> Path:
    checkpoints.save_timm("vit_base_patch16_224", folder)
    return edit(folder, model_args={**checkpoints.TIMM, "img_size": 96})


def shards(folder: Path) -> Path:
    torch.manual_seed(0)
    model = tf.ViTForImageClassification(checkpoints.config("ViTConfig"))
    return Path(checkpoints.save(model, folder, max_shard_size="60KB"))


def unlisted_shard(folder: Path) -> Path:
    file = shards(folder) / "model.safetensors.index.json"
    content = json.loads(file.read_text())
    gone = sorted(set(content["weight_map"].values()))[1]
    content["weight_map"] = {k: v for k, v in content["weight_map"].items() if v != gone}
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (without("layer.1.intermediate"), "layers.1.mlp.fc1.weight"),
        (without("layernorm."), "vit.layernorm.weight"),
        (narrower, "mlp.fc1.bias has shape (48,) in the file and (64,) by the config"),
        (timm_keys, "cls_token"),
        (gated, "mlp.fc2.weight has shape"),
        (lambda f: edit(plain_vit(f), image_size=96), "position_embeddings has shape (1, 17, 32)"),
        (
            lambda f: edit(checkpoints.write("dinov2", f), image_size=96),
            "position_embeddings has shape (1, 17, 32)",
        ),
        (timm_size, "pos_embed has shape"),
        (unlisted_shard, "not in the file"),
    ],
    ids=[
        "layer",
        "norm",
        "shape",
        "names",
        "gated",
        "image_size",
        "dinov2_size",
        "timm_size",
        "unlisted",
    ],
)
def test_a_body_that_is_not_all_in_the_file_is_refused_by_name(
    write: Any, named: str, tmp_path: Path
) -> None:
    folder = write(tmp_path)
    with pytest.raises(ValueError, match="would be drawn at random") as caught:
        load_backbone(folder)
    assert named in str(caught.value)
    assert "config.json" in str(caught.value)


def scaled(folder: Path) -> Path:
    """A network with layer scale, which is a keyword of timm's, beside a config without it."""
    checkpoints.save_timm("vit_base_patch16_224", folder)
    shape = {**checkpoints.TIMM, "init_values": 0.1}
    network = timm.create_model("vit_base_patch16_224", num_classes=0, **shape)
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (scaled, "blocks.0.ls1.gamma"),
        (lambda f: edit(plain_vit(f), num_hidden_layers=2), "layers.2.attention.k_proj.bias"),
    ],
    ids=["layer scale", "depth"],
)
def test_blocks_that_hold_more_in_the_file_are_refused_by_name(
    write: Any, named: str, tmp_path: Path
) -> None:
    folder = write(tmp_path)
    with pytest.raises(ValueError, match="computes something else") as caught:
        load_backbone(folder)
    assert named in str(caught.value)


def test_tables_of_places_that_were_saved_with_the_blocks_are_no_weights(tmp_path: Path) -> None:
    name = "encoder.layers.0.blocks.0.attention.self.relative_position_index"
    folder = edit_weights(
        checkpoints.write("swin", tmp_path), lambda w: {**w, name: torch.zeros(16, 16).long()}
    )
    assert load_backbone(folder).blocks == 3


def lost_shard(folder: Path) -> Path:
    sorted(shards(folder).glob("model-*"))[1].unlink()
    return folder


def pointer(folder: Path) -> Path:
    (plain_vit(folder) / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )
    return folder


def one_channel_timm(folder: Path) -> Path:
    return Path(checkpoints.save_timm("vit_base_patch16_224", folder, say_classes=True, in_chans=1))


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (lost_shard, "model-00002-of-00003.safetensors not found"),
        (pointer, "git lfs pull"),
        (lambda f: plain_vit(f, num_channels=1), "3 channels"),
        (one_channel_timm, "3 channels"),
        (lambda f: edit(plain_vit(f), "adapter_config.json", peft_type="LORA"), "holds an adapter"),
        (lambda f: edit(plain_vit(f), model_type="nonsense"), "could not be read (config.json)"),
        (
            lambda f: edit(
                checkpoints.write("timm_vit", f), model_args={"checkpoint_path": "x.pth"}
            ),
            "checkpoint_path",
        ),
        (
            lambda f: edit(checkpoints.write("timm_vit", f), architecture="vit_nonsense"),
            "vit_nonsense",
        ),
        (
            lambda f: checkpoints.save(tf.DINOv3ViTModel(checkpoints.config("DINOv3ViTConfig")), f),
            "'dinov3_vit'",
        ),
        (
            lambda f: checkpoints.save(
                tf.BeitForMaskedImageModeling(checkpoints.config("BeitConfig")), f
            ),
            "beit.pooler.layernorm.weight not in the file",
        ),
    ],
    ids=[
        "lost",
        "pointer",
        "grey",
        "grey_timm",
        "adapter",
        "kind",
        "pickle",
        "architecture",
        "dinov3",
        "beit_mim",
    ],
)
def test_what_cannot_be_used_is_refused_in_words(write: Any, named: str, tmp_path: Path) -> None:
    folder = write(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match="--model: expected") as caught:
        load_backbone(folder)
    assert named in str(caught.value)


def test_timm_pools_as_the_checkpoint_says(tmp_path: Path) -> None:
    """Of two poolings of the same parameters the config's is taken, beside or among model_args."""
    shape = {**checkpoints.TIMM, "fc_norm": False}
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch16_224", num_classes=2, global_pool="avg", **shape)
    checkpoints.save_timm("vit_base_patch16_224", tmp_path, 2, global_pool="avg", fc_norm=False)
    save_file(network.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    edit(tmp_path, model_args=shape, global_pool="avg")
    model = load_backbone(tmp_path).model
    pictures = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        model.timm_model.forward_features(pictures), network.eval().forward_features(pictures)
    )
    assert model.timm_model.global_pool == "avg"


def test_the_hash_is_of_the_files_that_are_loaded(tmp_path: Path) -> None:
    whole = plain_vit(tmp_path / "whole")
    content = (whole / "model.safetensors").read_bytes()
    (whole / "other.safetensors").write_bytes(b"not looked at")
    assert load_backbone(whole).sha256 == hashlib.sha256(content).hexdigest()
    parts = shards(tmp_path / "parts")
    joined = b"".join(file.read_bytes() for file in sorted(parts.glob("model-*.safetensors")))
    backbone = load_backbone(parts)
    assert backbone.sha256 == hashlib.sha256(joined).hexdigest()
    same = load_backbone(whole).model.state_dict()
    for key, value in backbone.model.state_dict().items():
        assert "classifier" in key or torch.equal(value, same[key])


def pictures_of(folder: Path, processor: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a checkpoint's own processor makes of a picture of the model's side, and what a backbone does."""
    backbone = load_backbone(folder)
    side = backbone.image_size
    values = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    theirs = processor(Image.fromarray(values), return_tensors="np")["pixel_values"][0]
    ours = (values / 255 - backbone.image_mean) / np.array(backbone.image_std)
    return np.asarray(theirs), ours.transpose(2, 0, 1)


@pytest.mark.parametrize(
    "says",
    [
        {},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"do_normalize": False},
        {"do_normalize": False, "image_mean": None, "image_std": None},
        {"do_normalize": False, "do_rescale": False},
        {"do_rescale": False, "image_mean": [100, 110, 120], "image_std": [50, 60, 70]},
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    ],
    ids=["plain", "own", "none", "none_null", "raw", "raw_mean", "factor"],
)
def test_pictures_have_the_numbers_of_the_checkpoint_s_processor(
    says: dict[str, Any], tmp_path: Path
) -> None:
    folder = plain_vit(tmp_path)
    square = {"height": 64, "width": 64}
    edit(folder, "preprocessor_config.json", image_processor_type="ViTImageProcessor", size=square, **says)  # fmt: skip
    theirs, ours = pictures_of(folder, tf.AutoImageProcessor.from_pretrained(folder))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("says", "named"),
    [
        ({"image_mean": None}, "image_mean"),
        ({"image_std": [0.5, 0.0, 0.5]}, "none of them 0"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"image_processor_type": "NoSuchProcessor"}, "preprocessor_config.json"),
    ],
    ids=["null", "zero", "one", "unknown"],
)
def test_a_processor_that_says_no_numbers_is_refused(
    says: dict[str, Any], named: str, tmp_path: Path
) -> None:
    folder = plain_vit(tmp_path)
    edit(
        folder, "preprocessor_config.json", **{"image_processor_type": "ViTImageProcessor", **says}
    )
    with pytest.raises(ValueError, match="--model: expected") as caught:
        load_backbone(folder)
    assert named in str(caught.value)


def test_the_side_is_the_processor_s_where_the_model_takes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dino = checkpoints.config("Dinov2Config", mlp_ratio=2, image_size=128)
    folder = checkpoints.save(tf.Dinov2Model(dino), tmp_path / "dino")
    tf.BitImageProcessor(
        size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}, resample=3
    ).save_pretrained(folder)
    backbone = load_backbone(folder)
    assert backbone.image_size == 64
    fed = backbone.describe().input
    assert fed["processor_asks"] == {"image_size": 64, "interpolation": "bicubic", "crop_share": 0.8}  # fmt: skip
    assert fed["interpolation"] == "bilinear"
    # a plain ViT takes the side of its config alone, and that is said
    vit = plain_vit(tmp_path / "vit")
    tf.ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(vit)
    assert load_backbone(vit).image_size == 64
    assert "asks for 224 px" in caplog.text


def _hub() -> Any:
    place = Path(__file__).parents[1] / "hub" / "loopback_hub.py"
    spec = importlib.util.spec_from_file_location("loopback_hub", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LoopbackHub()


FROM_HUB = """
import json, sys, warnings
from fairtune_hf import load_backbone
found = {}
for repo in sys.argv[1:]:
    backbone = load_backbone(repo)
    found[repo] = [backbone.sha256, backbone.revision, backbone.count_parameters()]
print("FOUND " + json.dumps(found))
"""


@pytest.mark.slow
def test_hub_ids_whole_and_in_shards_load_as_their_folders_do(tmp_path: Path) -> None:
    folders = {
        "me/whole": plain_vit(tmp_path / "whole"),
        "me/parts": shards(tmp_path / "parts"),
        "timm/small.mae": checkpoints.write("timm_mae", tmp_path / "timm"),
    }
    hub = _hub()
    try:
        for number, (repo, folder) in enumerate(folders.items(), 1):
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            hub.repos[repo] = {"private": False, "sha": str(number) * 40, "files": files}
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "cache"),
        }
        done = subprocess.run(
            [sys.executable, "-c", FROM_HUB, *folders],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        hub.close()
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.split("FOUND ")[1])
    for number, (repo, folder) in enumerate(folders.items(), 1):
        local = load_backbone(folder)
        assert found[repo] == [local.sha256, str(number) * 40, local.count_parameters()]
