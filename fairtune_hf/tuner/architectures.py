"""Where LayerNorm, attention and MLP live in each architecture.

One table, `ARCHITECTURES`, matched by the names of modules, so that it serves any depth and any class
built from the same blocks. For a model that is not in it, `block_pattern` says where the blocks are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from fairtune_hf.mask import UNITS

from .names import plain_modules

BlockPattern = str | Mapping[str, str | list[str]]
"""A glob for the blocks (`"trunk.cells.*"`), or a mapping with that glob under `block` and the
children's names under `norm1`, `norm2`, `attention`, `mlp`, `head`."""

PATTERN_ATTRIBUTE = "fairmask_block_pattern"
"""A model that carries this attribute is read by it wherever no other `block_pattern` is given, so
that whoever loads the model says once where its blocks are. Copies of the model keep it."""


@dataclass(frozen=True)
class ArchitectureSpec:
    """One row of the table. Block children are relative to the block, the rest to the trunk.

    The trunk is the module that holds the blocks: everything before `blocks` in their path. What a row
    leaves out is as in the ViT of transformers.
    """

    name: str
    blocks: str
    norm1: tuple[str, ...] = ("layernorm_before",)
    norm2: tuple[str, ...] = ("layernorm_after",)
    attention: tuple[str, ...] = ("attention",)
    mlp: tuple[str, ...] = ("mlp",)
    attention_extra: tuple[str, ...] = ()
    """Children that belong to the attention in some models and are absent from others."""
    embeddings: tuple[str, ...] = ("embeddings",)
    position_embeddings: tuple[str, ...] = ("embeddings.position_embeddings",)
    cls_token: tuple[str, ...] = ("embeddings.cls_token", "embeddings.distillation_token")
    patch_embeddings: tuple[str, ...] = ("embeddings.patch_embeddings",)
    final_norm: tuple[str, ...] = ("layernorm", "pooler.layernorm")
    head: tuple[str, ...] = ("classifier", "cls_classifier", "distillation_classifier")

    def units(self) -> dict[str, tuple[str, ...]]:
        """The names of a block's children by unit."""
        return {name: getattr(self, name) for name in UNITS["block"]}


_CLIP_NAMES = {
    "norm1": ("layer_norm1",),
    "norm2": ("layer_norm2",),
    "attention": ("self_attn",),
    "position_embeddings": ("embeddings.position_embedding",),
    "cls_token": ("embeddings.class_embedding",),
    "patch_embeddings": ("embeddings.patch_embedding",),
    "final_norm": ("post_layernorm",),
}

ARCHITECTURES: tuple[ArchitectureSpec, ...] = (
    # ViT, DeiT, BEiT and ViTMAE's encoder; transformers >= 5.9
    ArchitectureSpec("vit", "layers.*", attention_extra=("relative_position_bias",)),
    # the same before 5.9
    ArchitectureSpec("vit_encoder", "encoder.layer.*", mlp=("intermediate", "output")),
    # DINOv2, with or without registers
    ArchitectureSpec("dinov2", "encoder.layer.*", norm1=("norm1",), norm2=("norm2",)),
    # CLIP and SigLIP vision towers
    ArchitectureSpec("clip_vision", "encoder.layers.*", **_CLIP_NAMES),
    ArchitectureSpec("swin", "encoder.layers.*.blocks.*"),
    ArchitectureSpec("swin_before", "encoder.layers.*.blocks.*", mlp=("intermediate", "output")),
    # timm's ViT, DeiT and EVA, and TimmWrapper around them
    ArchitectureSpec(
        "timm",
        "blocks.*",
        norm1=("norm1",),
        norm2=("norm2",),
        attention=("attn",),
        embeddings=(),
        position_embeddings=("pos_embed",),
        cls_token=("cls_token", "dist_token"),
        patch_embeddings=("patch_embed",),
        final_norm=("norm", "fc_norm"),
        head=("head", "head_dist"),
    ),
)


def count_blocks(model: nn.Module, block_pattern: BlockPattern | None = None) -> int:
    """The number of transformer blocks of a model, which fixes the length of its masks.

    Raises:
        ValueError: If the architecture is not known and no `block_pattern` is given.
    """
    return len(find_blocks(model, block_pattern)[1])


def find_blocks(
    model: nn.Module, block_pattern: BlockPattern | None = None
) -> tuple[ArchitectureSpec, list[str], str]:
    """Find the row of the table that fits, the names of the blocks, and the trunk's name.

    Raises:
        ValueError: If nothing fits.
    """
    names = plain_modules(model)
    block_pattern = own_pattern(model) if block_pattern is None else block_pattern
    if block_pattern is not None:
        spec = _spec_from_pattern(block_pattern, names)
        blocks = _matching_blocks(spec, names)
        if not blocks:
            raise ValueError(_nothing_matched(spec, names))
        return spec, blocks, _trunk(spec, blocks[0])
    fits = [(spec, blocks) for spec in ARCHITECTURES if (blocks := _matching_blocks(spec, names))]
    if not fits:
        raise ValueError(_unknown_architecture(model, names))
    spec, blocks = max(fits, key=lambda fit: len(fit[1]))
    return spec, blocks, _trunk(spec, blocks[0])


def own_pattern(model: nn.Module) -> BlockPattern | None:
    """The `block_pattern` that a model carries, or None."""
    found: BlockPattern | None = getattr(model, PATTERN_ATTRIBUTE, None)
    return found


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(r"(?:(.*)\.)?" + re.escape(pattern).replace(r"\*", r"\d+"))


def _trunk(spec: ArchitectureSpec, block: str) -> str:
    match = _glob(spec.blocks).fullmatch(block)
    return (match.group(1) if match else None) or ""


def _matching_blocks(spec: ArchitectureSpec, names: Iterable[str]) -> list[str]:
    """Names of the modules that match the glob and have all the children that the row names."""
    known = set(names)
    pattern = _glob(spec.blocks)
    children = [child for unit in spec.units().values() for child in unit]
    return [
        name
        for name in names
        if (match := pattern.fullmatch(name))
        and "text_model" not in (match.group(1) or "").split(".")
        and all(f"{name}.{child}" in known for child in children)
    ]


_GUESSES = {
    "attention": re.compile(r"attn|attention"),
    "mlp": re.compile(r"mlp|ffn|feed_?forward|intermediate|output|fc\d"),
}


def _spec_from_pattern(pattern: BlockPattern, modules: Mapping[str, nn.Module]) -> ArchitectureSpec:
    if isinstance(pattern, str):
        return _guessed_spec(pattern, modules)
    if "block" not in pattern:
        raise ValueError(
            f"block_pattern: expected a `block` glob among its keys, got {sorted(pattern)}. "
            'Example: {"block": "trunk.cells.*", "norm1": "ln_a", "norm2": "ln_b", '
            '"attention": "mixer", "mlp": "ffn", "head": "out"}.'
        )
    names = {key: _as_names(pattern.get(key, ())) for key in ("norm1", "norm2", "attention", "mlp")}
    head = _as_names(pattern["head"]) if "head" in pattern else ("classifier", "head")
    return ArchitectureSpec("block_pattern", str(pattern["block"]), head=head, **names)


def _as_names(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _guessed_spec(glob: str, modules: Mapping[str, nn.Module]) -> ArchitectureSpec:
    blocks = [name for name in modules if _glob(glob).fullmatch(name)]
    if not blocks:
        raise ValueError(
            f"block_pattern={glob!r} matches no module. Numbered modules of this model: "
            f"{', '.join(_numbered(modules)) or 'none'}."
        )
    children = _common_children(blocks, modules)
    parts, rest = _guess_parts(children)
    if rest or not all(parts.values()) or len(parts["norms"]) > 2:
        why = f"; {', '.join(rest)} could belong to any of them" if rest else ""
        raise ValueError(
            f"block_pattern={glob!r}: expected children of {blocks[0]} that can be told to be one or two "
            f"norms, attention and MLP, got {_listed(children)}{why}. Name them, a list where a part has "
            f'several: block_pattern={{"block": {glob!r}, "norm1": ..., "norm2": ..., "attention": ..., '
            '"mlp": ...}.'
        )
    norm1, *norm2 = parts["norms"]
    return ArchitectureSpec(
        "block_pattern",
        glob,
        norm1=(norm1,),
        norm2=tuple(norm2),
        attention=tuple(parts["attention"]),
        mlp=tuple(parts["mlp"]),
        head=("classifier", "head"),
    )


def _common_children(
    blocks: Iterable[str], modules: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """The children that every block has; what only some have, such as a stage's projection, is no part."""
    first, *others = [dict(modules[block].named_children()) for block in blocks]
    return {name: child for name, child in first.items() if all(name in other for other in others)}


def _guess_parts(children: Mapping[str, nn.Module]) -> tuple[dict[str, list[str]], list[str]]:
    """Sort a block's children into norms, attention and MLP; what has parameters and no place is returned too."""
    parts: dict[str, list[str]] = {"norms": [], "attention": [], "mlp": []}
    rest = []
    for name, child in children.items():
        if "norm" in _kind(child):
            parts["norms"].append(name)
            continue
        part = next((p for p, guess in _GUESSES.items() if guess.search(name.lower())), None)
        if part is not None:
            parts[part].append(name)
        elif "scale" not in _kind(child) and next(child.parameters(), None) is not None:
            rest.append(name)  # one projection of several parts, say: to guess would misread it
    return parts, rest


def _kind(module: nn.Module) -> str:
    return type(getattr(module, "base_layer", module)).__name__.lower()


def _listed(children: Mapping[str, nn.Module]) -> str:
    return ", ".join(f"{name} ({_kind(child)})" for name, child in children.items())


def _numbered(names: Iterable[str]) -> list[str]:
    """Globs of the module lists in a model: where its blocks may be."""
    globs = (re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names)
    return list(dict.fromkeys(glob for glob in globs if glob.endswith(".*")))


def _nothing_matched(spec: ArchitectureSpec, names: Mapping[str, nn.Module]) -> str:
    block = next((name for name in names if _glob(spec.blocks).fullmatch(name)), None)
    if block is None:
        found = f"no module matches {spec.blocks!r}; lists found: {', '.join(_numbered(names))}"
    else:
        children = dict(names[block].named_children())
        found = f"{block} has the children {_listed(children)}"
    wanted = [child for unit in spec.units().values() for child in unit]
    return f"block_pattern: expected blocks with the children {wanted}, but {found}. Correct the names."


def _unknown_architecture(model: nn.Module, names: Mapping[str, nn.Module]) -> str:
    lists = _numbered(names)
    example = _likely_blocks(lists, names)
    first = next((name for name in names if _glob(example).fullmatch(name)), None)
    inside = _listed(dict(names[first].named_children())) if first else ""
    return (
        f"model: expected a vision transformer with known blocks ("
        f"{', '.join(spec.name for spec in ARCHITECTURES)}), got {type(model).__name__}. Lists of "
        f"modules found: {', '.join(lists) or 'none'}"
        + (f"; {first} holds {inside}" if inside else "")
        + f". Say where the blocks are: block_pattern={{'block': {example!r}, 'norm1': ..., 'norm2': "
        "..., 'attention': ..., 'mlp': ..., 'head': ...} (the flag --block-pattern takes it as JSON), or "
        "name the modules to train with target_modules=[...] instead of a mask."
    )


def _likely_blocks(lists: list[str], names: Mapping[str, nn.Module]) -> str:
    """The list whose members look most like blocks: with norms, attention and MLP, or most of them."""

    def looks(glob: str) -> int:
        blocks = [name for name in names if _glob(glob).fullmatch(name)]
        parts, _ = _guess_parts(_common_children(blocks, names))
        return sum(map(bool, parts.values()))

    return max(lists, key=looks, default="trunk.blocks.*")
