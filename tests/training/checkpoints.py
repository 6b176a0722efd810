"""Tiny checkpoints of random weights, saved as on the Hub, and the sizes of their parts by formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as tf
from timm.models import save_for_hf

WIDTH, DEPTH, INNER, SIDE, PATCH = 32, 3, 64, 64, 16
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
    "image_size": SIDE,
    "patch_size": PATCH,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 16,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 16,
}
TIMM = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "img_size": SIDE}
SWIN = {
    "image_size": SIDE,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [1, 2],
    "window_size": 4,
}
DECODER = {
    "decoder_num_hidden_layers": 1,
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


# Of a plain ViT: two norms, four projections and two layers a block.
NORMS = DEPTH * 2 * 2 * WIDTH
ATTENTION = DEPTH * 4 * linear(WIDTH, WIDTH)
MLP = DEPTH * (linear(WIDTH, INNER) + linear(INNER, WIDTH))
WIDE = DEPTH * (linear(WIDTH, 4 * WIDTH) + linear(4 * WIDTH, WIDTH))  # timm's models: ratio 4
HEAD = linear(WIDTH, 2)
PATCHES = linear(3 * PATCH**2, WIDTH)
TOKENS = (SIDE // PATCH) ** 2
NORM = 2 * WIDTH
# patches, class token, positions, last norm
AROUND = PATCHES + WIDTH + (TOKENS + 1) * WIDTH + NORM
LAYER_SCALE = DEPTH * 2 * WIDTH
# Swin: one block of width 8 and two of 16, windows of 4 pictured as 7 x 7 offsets a head
SWIN_NORMS = 2 * 2 * 8 + 2 * 2 * 2 * 16
SWIN_ATTENTION = 4 * linear(8, 8) + 49 + 2 * (4 * linear(16, 16) + 49 * 2)
SWIN_MLP = linear(8, 32) + linear(32, 8) + 2 * (linear(16, 64) + linear(64, 16))
SWIN_AROUND = linear(3 * 16, 8) + 2 * 8 + linear(32, 16, bias=False) + 2 * 32 + 2 * 16
# SigLIP's pooling by attention in timm: a query, three projections in two layers, a norm, an MLP
POOLING = (
    WIDTH
    + linear(WIDTH, WIDTH)
    + linear(WIDTH, 2 * WIDTH)
    + linear(WIDTH, WIDTH)
    + NORM
    + linear(WIDTH, 4 * WIDTH)
    + linear(4 * WIDTH, WIDTH)
)
# the same in transformers, where the MLP has the tower's width; its classifier leaves it unused
HF_POOLING = WIDTH + 4 * linear(WIDTH, WIDTH) + NORM + MLP // DEPTH


def save(model: Any, folder: Path, **kwargs: Any) -> Path:
    model.save_pretrained(folder, **kwargs)
    return folder


def config(name: str, **values: Any) -> Any:
    return getattr(tf, name)(**{**SHAPE, **values})


def towers(name: str, folder: Path) -> Path:
    """A dual encoder of pictures and text."""
    both = getattr(tf, f"{name}Config")(vision_config=SHAPE, text_config=TEXT)
    return save(getattr(tf, f"{name}Model")(both), folder)


def save_timm(
    architecture: str,
    folder: Path,
    classes: int = 0,
    *,
    say_classes: bool = False,
    model_args: dict[str, Any] | None = None,
    **shape: Any,
) -> Path:
    """A folder as timm pushes it: config.json without a model_type, and the bare network's weights."""
    shape = {**TIMM, **shape}
    model = timm.create_model(architecture, num_classes=classes, **shape)
    told = shape if model_args is None else model_args
    save_for_hf(model, folder, model_args=told, safe_serialization=True)
    file = folder / "config.json"
    content = json.loads(file.read_text())
    for name in () if say_classes else ("num_classes", "in_chans"):
        content.get("model_args", {}).pop(name, None)
    file.write_text(json.dumps(content))
    return folder


def plain(**changes: int) -> dict[str, int]:
    sizes = {"layernorm": NORMS, "attention": ATTENTION, "mlp": MLP, "head": HEAD, "other": AROUND}
    return {**sizes, **changes}


# name: (writes the folder, sizes by formula)
FAMILIES: dict[str, tuple[Any, dict[str, int]]] = {
    "vit": (
        lambda f: save(tf.ViTForImageClassification(config("ViTConfig", num_labels=5)), f),
        plain(),
    ),
    "vit_headless": (lambda f: save(tf.ViTModel(config("ViTConfig")), f), plain()),
    "deit_headless": (
        lambda f: save(tf.DeiTModel(config("DeiTConfig")), f),
        plain(other=AROUND + 2 * WIDTH),  # a second token and its position
    ),
    "deit_distilled": (
        lambda f: save(
            tf.DeiTForImageClassificationWithTeacher(config("DeiTConfig", num_labels=5)), f
        ),
        plain(other=AROUND + 2 * WIDTH, head=2 * HEAD),
    ),
    "dinov2": (
        lambda f: save(tf.Dinov2Model(config("Dinov2Config", mlp_ratio=2)), f),
        # a mask token beside; the head reads the class token and the patches' mean
        plain(other=AROUND + WIDTH + LAYER_SCALE, head=linear(2 * WIDTH, 2)),
    ),
    "dinov2_registers": (
        lambda f: save(
            tf.Dinov2WithRegistersModel(config("Dinov2WithRegistersConfig", mlp_ratio=2)), f
        ),
        plain(other=AROUND + 5 * WIDTH + LAYER_SCALE, head=linear(2 * WIDTH, 2)),
    ),
    "beit": (
        lambda f: save(tf.BeitModel(config("BeitConfig")), f),
        plain(
            attention=ATTENTION - DEPTH * WIDTH,  # keys have no bias
            other=AROUND - (TOKENS + 1) * WIDTH + LAYER_SCALE,  # no positions
        ),
    ),
    "clip": (lambda f: towers("CLIP", f), plain(other=AROUND - WIDTH + NORM)),
    "clip_vision": (
        lambda f: save(tf.CLIPVisionModel(config("CLIPVisionConfig")), f),
        plain(other=AROUND - WIDTH + NORM),  # patches without bias; a norm before the blocks
    ),
    "siglip": (
        lambda f: towers("Siglip", f),
        plain(other=AROUND - 2 * WIDTH + HF_POOLING),
    ),  # no class token
    "siglip_vision": (
        lambda f: save(tf.SiglipVisionModel(config("SiglipVisionConfig")), f),
        plain(other=AROUND - 2 * WIDTH + HF_POOLING),
    ),
    "vit_mae": (
        lambda f: save(tf.ViTMAEForPreTraining(config("ViTMAEConfig", **DECODER)), f),
        plain(),
    ),
    "vit_mae_encoder": (lambda f: save(tf.ViTMAEModel(config("ViTMAEConfig")), f), plain()),
    "swin": (
        lambda f: save(tf.SwinModel(tf.SwinConfig(**SWIN)), f),
        {
            "layernorm": SWIN_NORMS,
            "attention": SWIN_ATTENTION,
            "mlp": SWIN_MLP,
            "head": linear(16, 2),
            "other": SWIN_AROUND,
        },
    ),
    "timm_vit": (lambda f: save_timm("vit_base_patch16_224", f, 1000), plain(mlp=WIDE)),
    "timm_mae": (
        lambda f: save_timm("vit_base_patch16_224.mae", f),
        plain(mlp=WIDE),
    ),
    "timm_classes_said_twice": (
        lambda f: save_timm("vit_base_patch16_224", f, 3, say_classes=True),
        plain(mlp=WIDE),
    ),
    "timm_deit_distilled": (
        lambda f: save_timm("deit_small_distilled_patch16_224", f),
        plain(mlp=WIDE, other=AROUND + 2 * WIDTH, head=2 * HEAD),
    ),
    "timm_deit3": (
        lambda f: save_timm("deit3_small_patch16_224", f),
        plain(mlp=WIDE, other=AROUND - WIDTH + LAYER_SCALE),  # the class token has no position
    ),
    "timm_dinov2": (
        lambda f: save_timm("vit_small_patch14_dinov2", f, img_size=56),
        plain(mlp=WIDE, other=AROUND - PATCHES + linear(3 * 14**2, WIDTH) + LAYER_SCALE),
    ),
    "timm_siglip": (
        lambda f: save_timm("vit_base_patch16_siglip_224", f),
        plain(mlp=WIDE, other=AROUND - 2 * WIDTH + POOLING),
    ),
    "timm_clip": (
        lambda f: save_timm("vit_base_patch16_clip_224", f, 7),
        plain(mlp=WIDE, other=AROUND - WIDTH + NORM),
    ),
    "timm_eva": (
        lambda f: save_timm("eva02_tiny_patch14_224", f, img_size=56),
        plain(
            attention=ATTENTION - DEPTH * WIDTH,
            # a gated MLP of 8/3 the width: gate and value, then out
            mlp=DEPTH * (2 * linear(WIDTH, 85) + linear(85, WIDTH)),
            other=AROUND - PATCHES + linear(3 * 14**2, WIDTH),
        ),
    ),
}


def write(name: str, folder: Path) -> Path:
    """Write a family's folder with weights drawn from a fixed seed."""
    torch.manual_seed(0)
    written: Path = FAMILIES[name][0](folder)
    return written
