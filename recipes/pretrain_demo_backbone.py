"""Pre-train the embedded demo backbone on procedurally drawn figures.

The pictures are one to three alike figures (lobed discs filled with a pattern) on a patterned
ground; the targets say what was drawn: how many, how many lobes, which pattern, which direction,
which colours, where. There is no skin, no lesion, no diagnosis and no group in them. Every batch is
new, drawn in torch on the device that trains, so the script needs no data and runs on GPU and CPU.

    python recipes/pretrain_demo_backbone.py --out fairtune_hf/training/demo_backbone
    torchrun --nproc-per-node 2 recipes/pretrain_demo_backbone.py --out ...   # one thread a core

A model of four blocks is trained first and then grown to twelve, which spares two thirds of the
work of learning the features. `--minutes` hurries a stage; the steps really done are printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

IMAGE_SIZE = 64
PATCH = 16
CELL = 4  # the dense targets are averages over CELL x CELL pixels
SCENE = 8  # the class token paints the whole picture on SCENE x SCENE cells
MAX_FIGURES = 3
LOBES = (2, 3, 4, 5, 6, 8)
PATTERNS = ("plain", "stripes", "checks", "dots", "clouds", "speckle")

# Attribute -> number of classes; the classifier's outputs are these, one after another.
ATTRIBUTES = {
    "count": MAX_FIGURES,
    "lobes": len(LOBES),
    "lobe_depth": 4,
    "size": 4,
    "place": 16,
    "softness": 3,
    "contrast": 4,
    "noise": 3,
    "figure_pattern": len(PATTERNS),
    "figure_direction": 6,
    "figure_frequency": 4,
    "figure_hue": 8,
    "ground_pattern": len(PATTERNS),
    "ground_direction": 6,
    "ground_frequency": 4,
    "ground_hue": 8,
}
OUTPUT_PROJECTIONS = r"(o_proj|attention\.output\.dense|\d\.output\.dense|fc2)\."
Batch = tuple[Tensor, dict[str, Tensor], Tensor]
IGNORED = -100  # the attribute cannot be seen in this picture, e.g. the direction of a plain ground


class Dice:
    """Random numbers of one batch, all from one generator."""

    def __init__(self, n: int, generator: torch.Generator):
        self.n = n
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        device = self.generator.device
        unit = torch.rand((self.n, *shape), generator=self.generator, device=device)
        return low + (high - low) * unit

    def normal(self, *shape: int) -> Tensor:
        device = self.generator.device
        return torch.randn((self.n, *shape), generator=self.generator, device=device)

    def pick(self, classes: int) -> Tensor:
        return self.uniform(0, classes).long().clamp_max(classes - 1)


def bins(values: Tensor, low: float, high: float, classes: int) -> Tensor:
    return ((values - low) / (high - low) * classes).long().clamp(0, classes - 1)


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colours (n, 3) of (n,) hues, saturations and values in [0, 1]."""
    sector = torch.tensor([5.0, 3.0, 1.0], device=hue.device)
    k = (sector + 6.0 * hue[:, None]) % 6.0
    wave = torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * wave)


def col(values: Tensor) -> Tensor:
    return values[:, None, None]


def grid(device: torch.device) -> tuple[Tensor, Tensor]:
    axis = 2.0 * (torch.arange(IMAGE_SIZE, device=device) + 0.5) / IMAGE_SIZE - 1.0
    return axis[None, None, :], axis[None, :, None]


def draw_pattern(dice: Dice, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """A field in about [-1, 1], shape (n, side, side), and the targets that describe it."""
    x, y = grid(dice.generator.device)
    kind = dice.pick(len(PATTERNS)) * (dice.uniform(0, 1) < 0.7)
    angle = dice.uniform(0, math.pi)
    octave = dice.uniform(0, 1)
    frequency = 2 * math.pi * 4.0**octave
    u = col(frequency * angle.cos()) * x + col(frequency * angle.sin()) * y
    v = col(frequency * angle.cos()) * y - col(frequency * angle.sin()) * x
    su = torch.sin(u + col(dice.uniform(0, 2 * math.pi)))
    sv = torch.sin(v + col(dice.uniform(0, 2 * math.pi)))
    size = (IMAGE_SIZE, IMAGE_SIZE)
    noise = dice.normal(1, 6, 6), dice.normal(1, 20, 20)
    clouds, speckle = (F.interpolate(z, size, mode="bilinear")[:, 0].clamp(-1, 1) for z in noise)
    field = torch.where(col(kind == 1), su, 0.0)
    field = torch.where(col(kind == 2), torch.tanh(4.0 * su * sv), field)
    field = torch.where(col(kind == 3), torch.tanh(4.0 * (su + sv - 0.8)), field)
    field = torch.where(col(kind == 4), clouds, field)
    field = torch.where(col(kind == 5), speckle, field)
    regular = (kind >= 1) & (kind <= 3)
    targets = {
        f"{name}_pattern": kind,
        f"{name}_direction": bins(angle, 0, math.pi, 6).where(kind == 1, IGNORED),
        f"{name}_frequency": bins(octave, 0, 1, 4).where(regular, IGNORED),
    }
    return field, targets


def draw_figures(dice: Dice) -> tuple[Tensor, dict[str, Tensor]]:
    """How far each pixel lies inside a figure, in [0, 1], and the targets that describe it."""
    x, y = grid(dice.generator.device)
    count = dice.pick(MAX_FIGURES) * (dice.uniform(0, 1) < 0.6)
    lobes = dice.pick(len(LOBES))
    depth = dice.uniform(0, 0.4)
    softness = dice.uniform(0.02, 0.12)
    k = torch.tensor(LOBES, device=x.device, dtype=x.dtype)[lobes]
    inside = torch.zeros(1, device=x.device)
    for i in range(MAX_FIGURES):
        radius = dice.uniform(0.3, 0.65) / (1.0 + 0.35 * count)
        cx, cy = dice.uniform(-0.45, 0.45), dice.uniform(-0.45, 0.45)
        dx, dy = x - col(cx), y - col(cy)
        theta = torch.atan2(dy, dx)
        wave = torch.cos(col(k) * theta + col(dice.uniform(0, 2 * math.pi)))
        gap = torch.sqrt(dx * dx + dy * dy) - col(radius) * (1.0 + col(depth) * wave)
        figure = torch.sigmoid(-gap / col(0.5 * softness)) * col(count >= i)
        inside = torch.maximum(inside, figure)
        if i == 0:
            size = bins(radius * (1.0 + 0.35 * count), 0.3, 0.65, 4)
            place = bins(cx, -0.45, 0.45, 4) + 4 * bins(cy, -0.45, 0.45, 4)
    targets = {
        "count": count,
        "lobes": lobes.where(depth > 0.08, IGNORED),
        "lobe_depth": bins(depth, 0, 0.4, 4),
        "size": size,
        "place": place.where(count == 0, IGNORED),
        "softness": bins(softness, 0.02, 0.12, 3),
    }
    return inside, targets


def draw_colours(dice: Dice) -> tuple[Tensor, Tensor, Tensor]:
    """Hue (n,) and the two colours (n, 3) between which a pattern swings."""
    hue = dice.uniform(0, 1)
    first = hsv_to_rgb(hue, dice.uniform(0.25, 0.9), dice.uniform(0.25, 0.95))
    swing = dice.uniform(0.15, 0.6)[:, None]
    second = first + swing * dice.uniform(-1, 1, 3)
    return hue, first, second


def draw_batch(n: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Draw `n` pictures.

    Returns:
        Pictures (n, 3, side, side) scaled to [-1, 1]; targets, (n,) class numbers by attribute;
        and dense targets (n, 4, side / CELL, side / CELL): figure or not, and the colour without
        noise.
    """
    dice = Dice(n, generator)
    targets: dict[str, Tensor] = {}
    layers = []
    inside, found = draw_figures(dice)
    targets |= found
    for name in ("ground", "figure"):
        field, found = draw_pattern(dice, name)
        hue, first, second = draw_colours(dice)
        targets |= found
        targets[f"{name}_hue"] = bins(hue, 0, 1, 8)
        mix = (0.5 + 0.5 * field)[:, None]
        layers.append(first[:, :, None, None] * (1 - mix) + second[:, :, None, None] * mix)
    contrast = dice.uniform(0.3, 1)
    targets["contrast"] = bins(contrast, 0.3, 1, 4)
    cover = (inside * col(contrast))[:, None]
    picture = layers[0] * (1 - cover) + layers[1] * cover
    x, y = grid(generator.device)
    light = dice.uniform(0.8, 1.2), dice.uniform(-0.2, 0.2), dice.uniform(-0.2, 0.2)
    picture = picture * (col(light[0]) + col(light[1]) * x + col(light[2]) * y)[:, None]
    dense = F.avg_pool2d(torch.cat([inside[:, None], picture.clamp(0, 1)], dim=1), CELL)
    noise = dice.uniform(0.0, 0.07)
    targets["noise"] = bins(noise, 0, 0.07, 3)
    grain = dice.normal(1, IMAGE_SIZE, IMAGE_SIZE)
    picture = (picture + noise[:, None, None, None] * grain).clamp(0, 1)
    return 2.0 * picture - 1.0, {name: targets[name] for name in ATTRIBUTES}, dense


class Pretrainer(nn.Module):
    """The classifier to keep, and three heads that are thrown away.

    Patch tokens paint their own patch, and their mean names the attributes too: they reach their
    features long before the class token has learnt where to look. The class token paints a coarse
    copy of the whole picture, which teaches it where to look.
    """

    def __init__(self, model: ViTForImageClassification):
        super().__init__()
        self.model = model
        self.dense_head = nn.Linear(model.config.hidden_size, 4 * (PATCH // CELL) ** 2)
        self.mean_head = nn.Linear(model.config.hidden_size, model.config.num_labels)
        self.scene_head = nn.Linear(model.config.hidden_size, 4 * SCENE**2)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        hidden = self.model.vit(pixel_values=pictures).last_hidden_state
        logits = self.model.classifier(hidden[:, 0])
        mean_logits = self.mean_head(hidden[:, 1:].mean(dim=1))
        side = IMAGE_SIZE // PATCH
        cells = self.dense_head(hidden[:, 1:])
        cells = cells.reshape(-1, side, side, 4, PATCH // CELL, PATCH // CELL)
        cells = cells.permute(0, 3, 1, 4, 2, 5).reshape(
            -1, 4, IMAGE_SIZE // CELL, IMAGE_SIZE // CELL
        )
        scene = self.scene_head(hidden[:, 0]).reshape(-1, 4, SCENE, SCENE)
        return logits, mean_logits, cells, scene


def attribute_losses(logits: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of each attribute relative to chance."""
    parts = logits.split(list(ATTRIBUTES.values()), dim=1)
    return {
        name: F.cross_entropy(part, targets[name]) / math.log(classes)
        for part, (name, classes) in zip(parts, ATTRIBUTES.items(), strict=True)
    }


def compute_loss(
    outputs: tuple[Tensor, ...], targets: dict[str, Tensor], dense: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss to minimise and its parts."""
    logits, mean_logits, cells, scene = outputs
    losses = attribute_losses(logits, targets)
    attributes = torch.stack(list(losses.values())).mean()
    mean = torch.stack(list(attribute_losses(mean_logits, targets).values())).mean()
    losses["attributes"] = attributes
    losses["mean_tokens"] = mean
    losses["cover"], losses["paint"] = picture_losses(cells, dense)
    coarse = F.adaptive_avg_pool2d(dense, SCENE)
    losses["scene_cover"], losses["scene_paint"] = picture_losses(scene, coarse)
    pictures = losses["cover"] + losses["paint"] + losses["scene_cover"] + losses["scene_paint"]
    return 2.0 * attributes + 2.0 * mean + pictures, losses


def picture_losses(drawn: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the figures' places and of the colours, for maps of any fineness."""
    cover = F.binary_cross_entropy_with_logits(drawn[:, 0], wanted[:, 0]) / math.log(2)
    return cover, 10.0 * F.mse_loss(drawn[:, 1:], wanted[:, 1:])


def build_model(hidden: int, heads: int, blocks: int) -> ViTForImageClassification:
    names = [f"{name}={i}" for name, classes in ATTRIBUTES.items() for i in range(classes)]
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # The usual 0.02 is for a width of 768; at a width of 96 it all but switches attention off.
        initializer_range=0.06,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    return ViTForImageClassification(config)


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def schedule(step: int, progress: float, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def grow(pretrainer: Pretrainer, blocks: int) -> Pretrainer:
    """Return the same function with more blocks.

    Each block is followed by copies of itself whose two output projections are zero, so that they
    add nothing yet and learn from there.
    """
    old = pretrainer.model
    model = build_model(old.config.hidden_size, old.config.num_attention_heads, blocks)
    kept, times = old.state_dict(), blocks // old.config.num_hidden_layers
    pattern = re.compile(r"(.*layers?\.)(\d+)(\..*)")
    state = {}
    for name in model.state_dict():
        found = pattern.fullmatch(name)
        if not found:
            state[name] = kept[name]
            continue
        block = int(found[2])
        state[name] = kept[f"{found[1]}{block // times}{found[3]}"].clone()
        if block % times and re.search(OUTPUT_PROJECTIONS, name):
            state[name].zero_()
    model.load_state_dict(state)
    grown = Pretrainer(model).to(next(old.parameters()).device)
    for head in ("dense_head", "mean_head", "scene_head"):
        setattr(grown, head, getattr(pretrainer, head))
    return grown


def stream(args: argparse.Namespace, generator: torch.Generator) -> Iterator[Batch]:
    """Fresh batches, in packs of eight that are shown `--replay` times."""
    while True:
        with torch.no_grad():
            pack = [draw_batch(args.batch_size, generator) for _ in range(8)]
        for _ in range(args.replay):
            yield from pack


def average_gradients(pretrainer: Pretrainer, progress: float) -> float:
    """Average gradients and progress over the processes, if `torchrun` started several."""
    if not dist.is_initialized():
        return progress
    gradients = [p.grad for p in pretrainer.parameters()]
    flat = torch.cat([g.flatten() for g in gradients] + [gradients[0].new_tensor([progress])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(
        gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))
    return flat[-1].item()


def run_stage(
    pretrainer: Pretrainer, batches: Iterator[Batch], steps: int, minutes: float, rate: float, args
) -> int:
    """Train for `steps`, or until the schedule, hurried by the clock, ends; return the steps done."""
    optimizer = build_optimizer(pretrainer, rate)
    started = time.monotonic()
    progress, step = 0.0, 0
    while progress < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, progress, args.warmup)
        pictures, targets, dense = next(batches)
        loss, losses = compute_loss(pretrainer(pictures), targets, dense)
        optimizer.zero_grad()
        loss.backward()
        seconds = time.monotonic() - started
        step += 1
        progress = average_gradients(pretrainer, max(step / steps, seconds / (60.0 * minutes)))
        nn.utils.clip_grad_norm_(pretrainer.parameters(), 1.0)
        optimizer.step()
        if args.rank == 0 and step % args.log_every == 1:
            text = " ".join(f"{name} {value.item():.2f}" for name, value in losses.items())
            print(f"{step} {seconds:.0f}s loss {loss.item():.3f} {text}", flush=True)
        if args.rank == 0 and step % args.checkpoint_every == 0:
            save(pretrainer.model, args.out)
    return step


def train(args: argparse.Namespace) -> tuple[ViTForImageClassification, dict[str, object]]:
    """Train a shallow model, grow it to its depth, and train that."""
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(args.seed)
    draws = torch.Generator(device).manual_seed(1000 * args.seed + 1 + args.rank)
    batches = stream(args, draws)
    started = time.monotonic()
    pretrainer = Pretrainer(build_model(args.hidden, args.heads, args.shallow_blocks)).to(device)
    rate = args.learning_rate
    shallow = run_stage(pretrainer, batches, args.shallow_steps, args.shallow_minutes, rate, args)
    pretrainer = grow(pretrainer, 12)
    deep = run_stage(pretrainer, batches, args.steps, args.minutes, rate * args.deep_rate, args)
    record = {name: str(value) for name, value in vars(args).items() if name not in ("out", "rank")}
    record |= {"shallow_steps_done": shallow, "steps_done": deep, "processes": args.processes}
    record |= {"seconds": round(time.monotonic() - started), "device": device.type}
    record |= {"torch": torch.__version__}
    return pretrainer.model, record | {"losses": measure(pretrainer, 1000 * args.seed, device)}


@torch.no_grad()
def measure(pretrainer: Pretrainer, seed: int, device: torch.device) -> dict[str, float]:
    """Losses on 2,048 fresh pictures; 1 is chance, 0 perfect."""
    generator = torch.Generator(device).manual_seed(seed)
    pictures, targets, dense = draw_batch(2048, generator)
    _, losses = compute_loss(pretrainer(pictures), targets, dense)
    return {name: round(float(value), 3) for name, value in losses.items()}


def save(model: ViTForImageClassification, out: Path) -> None:
    """Write fp16 weights, config and preprocessor, as `from_pretrained` expects them."""
    clone = ViTForImageClassification(model.config)
    clone.load_state_dict(model.state_dict())
    clone.half().save_pretrained(out)
    # Halves are for the wheel's size; whoever loads the model shall compute in float32.
    config = json.loads((out / "config.json").read_text()) | {"dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shallow-steps", type=int, default=3000)
    parser.add_argument("--shallow-blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--deep-rate", type=float, default=0.6, help="times --learning-rate")
    parser.add_argument("--shallow-minutes", type=float, default=math.inf)
    parser.add_argument("--minutes", type=float, default=math.inf, help="hurry the schedule")
    parser.add_argument("--replay", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=None)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--checkpoint-every", type=int, default=500)
    args = parser.parse_args()
    args.rank, args.processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.processes > 1:
        dist.init_process_group("gloo")
    model, record = train(args)
    if args.rank == 0:
        save(model, args.out)
        print(json.dumps(record))


if __name__ == "__main__":
    main()
