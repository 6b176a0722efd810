"""From a checkpoint's config and weights to a classifier of two classes whose body is all the file's.

The classification head may be new; nothing else may: whatever of the body is missing in the file, or
has another shape there, would be drawn at random, so it is refused by name. What blocks hold in the
file and not in the model would be left out of what they compute, and is refused too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPConfig,
    CLIPForImageClassification,
    PretrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging as transformers_logging

from fairtune_hf.naming import some
from fairtune_hf.tuner import PATTERN_ATTRIBUTE, BlockPattern, describe

CLASSES = 2
# Ours to say, or how timm would read other weights (pickles among them) or give features without a head.
_OWN_TIMM_ARGUMENTS = ("num_classes", "pretrained")
_REFUSED_TIMM_ARGUMENTS = (
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "features_only",
)
# Worked out from the architecture, not trained; earlier releases of the libraries saved them too.
_DERIVED = frozenset(
    {
        "attn_mask",
        "freqs_cos",
        "freqs_sin",
        "inv_freq",
        "relative_coords_table",
        "relative_position_index",
    }
)
# A vision tower's kind -> the dual encoder's config and its classifier, which has no text tower.
_TOWERS: dict[str, tuple[Any, Any]] = {
    "clip_vision_model": (CLIPConfig, CLIPForImageClassification),
    "siglip_vision_model": (SiglipConfig, SiglipForImageClassification),
}


def load_classifier(
    path: str, revision: str | None, block_pattern: BlockPattern | None = None
) -> PreTrainedModel:
    """Load a checkpoint's body into a classifier with a new head of two classes, in fp32 and evaluation mode.

    Args:
        path: A local folder or a Hub id with safetensors weights.
        revision: Of the Hub id.
        block_pattern: Where the blocks are, for an architecture that the tuner does not know.

    Raises:
        ValueError: There is no such checkpoint; it cannot be an image classifier of three colours; its blocks are not
            known; some of its body is not in the file; or its blocks in the file hold more than the config builds.
    """
    config = _read_config(path, revision)
    kind = config.model_type
    model_class, config = _choose_class(config)
    _check_channels(config)
    model, loading = _load(model_class, config, kind, path, revision)
    if block_pattern is not None:
        setattr(model, PATTERN_ATTRIBUTE, block_pattern)
    try:
        anatomy = describe(model)
    except ValueError as error:
        raise ValueError(f"--model: {str(error).removeprefix('model: ')}") from error
    heads = [leaf.name for leaf in anatomy.leaves if leaf.region == "head"]
    _check_body(model, loading, set(heads), path)
    _check_nothing_spare(loading["unexpected_keys"], anatomy.blocks, path)
    check_heads(model, head_modules(heads), path)
    # The base is never trained; every copy starts frozen and the tuner decides what trains.
    return model.eval()


def head_modules(leaves: Iterable[str]) -> list[str]:
    """Return the modules that hold the head's parameters, each once."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in leaves))


def check_heads(model: PreTrainedModel, heads: Iterable[str], name: str) -> list[torch.nn.Linear]:
    """Return a model's heads.

    Raises:
        ValueError: It has none, or one that is not linear.
    """
    modules = [model.get_submodule(head) for head in heads]
    linear = [module for module in modules if isinstance(module, torch.nn.Linear)]
    if not linear or len(linear) < len(modules):
        raise ValueError(
            f"--model: expected a model that ends in a linear classification head, and {name!r} ({type(model).__name__}) "
            "has none. Use an image-classification checkpoint, or name its head in block_pattern."
        )
    return linear


def _read_config(path: str, revision: str | None) -> Any:
    # A config from elsewhere can be wrong in any way: each becomes a refusal that says which.
    with quiet_transformers(), _refusal(path, "read (config.json)"):
        return AutoConfig.from_pretrained(
            path, revision=revision or "main", num_labels=CLASSES, trust_remote_code=False
        )


def _choose_class(config: Any) -> tuple[Any, Any]:
    """Return the classifier to load a config's weights into, and the config that it takes.

    A vision tower alone is put where a dual encoder has it.

    Raises:
        ValueError: There is none for this kind of model.
    """
    config.problem_type = None  # one of two classes, whatever the checkpoint was trained for
    kind = config.model_type
    if kind == "timm_wrapper":
        config.model_args = _timm_arguments(config)
    elif kind == "vit_mae":  # the encoder is a ViT; the decoder is left behind
        return ViTForImageClassification, _rebuild(config, ViTConfig)
    elif kind in _TOWERS:
        both, classifier = _TOWERS[kind]
        wrapped = both(vision_config=config.to_dict(), num_labels=CLASSES)
        return classifier, _with_origin(wrapped, config)
    elif kind == "siglip2":
        raise ValueError(
            "--model: expected a model that takes square pictures, got siglip2 of free resolution (NaFlex), which takes "
            "patches. Choose a checkpoint of fixed resolution, such as google/siglip2-base-patch16-224."
        )
    elif type(config) not in AutoModelForImageClassification._model_mapping:
        raise ValueError(
            f"--model: expected a kind of model that transformers has an image classifier for, got {kind!r}. Choose a "
            "checkpoint of another kind; many weights are on the Hub as timm/NAME too, which load."
        )
    return AutoModelForImageClassification, config


def _rebuild(config: Any, kind: Any) -> Any:
    """Carry a config's values over to a config of another kind."""
    known = set(kind().to_dict()) - {"model_type", "transformers_version", "architectures"}
    values = {name: value for name, value in config.to_dict().items() if name in known}
    return _with_origin(kind(**{**values, "num_labels": CLASSES}), config)


def _with_origin(config: Any, original: Any) -> Any:
    config._name_or_path = original._name_or_path
    return config


def _timm_arguments(config: Any) -> dict[str, Any]:
    """Return what timm builds the architecture with: the config's `model_args` and what timm reads beside them.

    timm itself takes the pooling and a fixed input size from the checkpoint's description where
    `model_args` say nothing; transformers' wrapper does not.
    """
    given = dict(config.model_args or {})
    refused = [name for name in _REFUSED_TIMM_ARGUMENTS if given.get(name)]
    if refused:
        raise ValueError(
            f"--model: expected model_args in config.json that describe an architecture, got {', '.join(refused)}. "
            "Remove that, and point --model at the folder of the weights themselves."
        )
    for name in _OWN_TIMM_ARGUMENTS:
        given.pop(name, None)
    described: Mapping[str, Any] = getattr(config, "pretrained_cfg", None) or {}
    pooling = getattr(config, "global_pool", None) or described.get("global_pool")
    if pooling is not None:
        given.setdefault("global_pool", pooling)
    size = described.get("input_size")
    if size and described.get("fixed_input_size"):
        given.setdefault("img_size", tuple(size[1:]))
    return given


def _check_channels(config: Any) -> None:
    vision = getattr(config, "vision_config", None) or config
    channels = getattr(vision, "num_channels", 3)
    if config.model_type == "timm_wrapper":
        described = getattr(config, "pretrained_cfg", None) or {}
        size = described.get("input_size") or (3,)
        channels = config.model_args.get("in_chans", getattr(config, "in_chans", size[0]))
    if channels != 3:
        raise ValueError(
            f"--model: expected a model of 3 channels, since pictures are read as red, green and blue, got {channels}. Choose "
            "another checkpoint; or repeat the weights of the patch embedding over three channels, divide them by 3, set the "
            "channels in its config.json to 3 and save it anew."
        )


def _load(
    model_class: Any, config: PretrainedConfig, kind: str, path: str, revision: str | None
) -> tuple[Any, dict[str, Any]]:
    # Building an architecture from a config of elsewhere, and reading weights into it, can fail in any way.
    # A tower saved alone names its weights with or without the place it has in the dual encoder.
    tower = {r"^(?!vision_model\.)": "vision_model."} if kind in _TOWERS else None
    with quiet_transformers(), _refusal(path, "loaded as an image classifier"):
        model, loading = model_class.from_pretrained(
            path,
            key_mapping=tower,
            config=config,
            revision=revision or "main",
            ignore_mismatched_sizes=True,  # of a head; of anything else it is refused afterwards
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
        return model, loading


@contextmanager
def _refusal(path: str, what: str) -> Iterator[None]:
    """Turn whatever a library raises into a refusal in words that keeps its cause."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"--model: expected an image-classification checkpoint in safetensors format, and {path!r} could not be "
            f"{what} ({first}). Check the name and its config.json, or choose another checkpoint; code of a checkpoint is "
            "never run."
        ) from error


def _check_body(
    model: PreTrainedModel, loading: Mapping[str, Any], heads: set[str], path: str
) -> None:
    """Refuse a body that is not all in the file.

    Raises:
        ValueError: Naming what is missing, or of another shape.
    """
    known = model.state_dict().keys() - heads
    missing = sorted(known & set(loading["missing_keys"]))
    shapes = {key: (tuple(there), tuple(here)) for key, there, here in loading["mismatched_keys"]}
    faults = [f"{some(missing)} not in the file"] if missing else []
    faults += [
        f"{key} has shape {there} in the file and {here} by the config"
        for key, (there, here) in sorted(shapes.items())
        if key in known
    ][:3]
    faults += list(loading.get("error_msgs") or [])[:1]
    if faults:
        spare = sorted(loading["unexpected_keys"])
        hint = (
            f" The file also holds {some(spare)}, which the model has no place for."
            if spare
            else ""
        )
        raise ValueError(
            f"--model: expected every weight but the classification head's in {path!r}, and they would be drawn at random: "
            f"{'; '.join(faults)}.{hint} The weights and config.json (architecture, image_size, model_args) describe different "
            "models: restore the config that came with them, or save model and config together with save_pretrained."
        )


def _check_nothing_spare(unexpected: Iterable[str], blocks: Iterable[str], path: str) -> None:
    """Refuse a file that has more in its blocks, or more blocks, than the config builds.

    Beside the blocks a file may hold what a classifier does not need: a pooler, a decoder, a text tower.

    Raises:
        ValueError: Naming what would be left out of the computation.
    """
    places = {re.sub(r"\d+", r"\\d+", re.escape(name)) for name in blocks}
    in_block = re.compile(rf"(?:{'|'.join(sorted(places))})\.")
    spare = sorted(
        key for key in unexpected if in_block.match(key) and key.rpartition(".")[2] not in _DERIVED
    )
    if spare:
        raise ValueError(
            f"--model: expected blocks in {path!r} as its config.json builds them, and the file holds {some(spare)}, which "
            "would be left out, so that the model computes something else than it was trained for. Restore the config "
            "that came with the weights, or save model and config together with save_pretrained."
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting the new head, and from drawing a progress bar."""
    before, bar = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bar:
            transformers_logging.enable_progress_bar()
