"""Small models of every supported family, built from configs without the network."""

import timm
import torch
import transformers as tf

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}


def _hf(model, config, **kwargs):
    return getattr(tf, model)(getattr(tf, config)(**{**TINY, **kwargs}))


def _tower(model, config, vision):
    """The image classifier on the vision half of a two-tower model."""
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 50}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision_config = getattr(tf, vision)(**TINY).to_dict()
    return getattr(tf, model)(
        getattr(tf, config)(vision_config=vision_config, text_config={**text, **ids})
    )


def _timm(name, **kwargs):
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return timm.create_model(name, num_classes=2, **{**size, **kwargs})


def _timm_wrapper():
    config = tf.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224",
        num_labels=2,
        model_args={"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2},
    )
    return tf.TimmWrapperForImageClassification(config)


SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [1, 2],
    "window_size": 2,
}

BUILDERS = {
    "vit": lambda: _hf("ViTForImageClassification", "ViTConfig"),
    "deit": lambda: _hf("DeiTForImageClassification", "DeiTConfig"),
    "deit_distilled": lambda: _hf("DeiTForImageClassificationWithTeacher", "DeiTConfig"),
    "dinov2": lambda: _hf("Dinov2ForImageClassification", "Dinov2Config", mlp_ratio=2),
    "dinov2_registers": lambda: _hf(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", mlp_ratio=2
    ),
    "beit": lambda: _hf("BeitForImageClassification", "BeitConfig"),
    "beit_relative": lambda: _hf(
        "BeitForImageClassification",
        "BeitConfig",
        use_relative_position_bias=True,
        layer_scale_init_value=0.5,
    ),
    "clip_vision": lambda: _tower("CLIPForImageClassification", "CLIPConfig", "CLIPVisionConfig"),
    "siglip_vision": lambda: _tower(
        "SiglipForImageClassification", "SiglipConfig", "SiglipVisionConfig"
    ),
    "vit_mae": lambda: _hf(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        decoder_num_hidden_layers=2,
        decoder_hidden_size=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    ),
    "swin": lambda: tf.SwinForImageClassification(tf.SwinConfig(**SWIN)),
    "timm_vit": lambda: _timm("vit_tiny_patch16_224"),
    "timm_deit_distilled": lambda: _timm("deit_tiny_distilled_patch16_224"),
    "timm_deit3": lambda: _timm("deit3_small_patch16_224"),
    "timm_eva": lambda: _timm("eva02_tiny_patch14_224"),
    "timm_wrapper": _timm_wrapper,
}


def build(name, seed=0):
    """A small model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return BUILDERS[name]().eval()


@torch.no_grad()  # with gradients, torch may choose another attention kernel
def run(model, images):
    """What the model says about images: logits, or ViTMAE's loss with a fixed mask."""
    if "MAE" in type(getattr(model, "base_model", model)).__name__ or hasattr(model, "decoder"):
        noise = torch.linspace(0, 1, 4).expand(len(images), 4)
        return model(images, noise=noise).loss
    out = model(images)
    return out.logits if hasattr(out, "logits") else out


def images(name, n=2):
    size = 32 if name == "swin" else 16
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))
