"""The ways people train: precisions, checkpointing, compile, DDP, FSDP2 and the HF Trainer."""

import copy
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers

from fairtune_hf.tuner import FairMaskConfig, Mask, describe

ROOT = Path(__file__).resolve().parents[2]
MIXED = {"mask": {"layernorm": "110", "attention": "011", "mlp": "101"}}


@pytest.fixture
def base(zoo):
    return zoo.build("vit")


@pytest.fixture
def batch(zoo):
    return {"pixel_values": zoo.images("vit", 4), "labels": torch.tensor([0, 1, 0, 1])}


def adapt(base, config=MIXED):
    return peft.get_peft_model(copy.deepcopy(base), FairMaskConfig(**config)).train()


def plain(base, mask):
    """The bare model with the parameters that the mask selects marked with `requires_grad`."""
    model = copy.deepcopy(base).requires_grad_(False).train()
    parameters = dict(model.named_parameters())
    units = Mask.parse(mask, blocks=3).units()
    for leaf in describe(model).leaves:
        if leaf.region == "head" or (leaf.block, leaf.unit) in units:
            parameters[leaf.name].requires_grad_(True)
    return model


def losses(model, batch, steps=4, context=None, lr=0.002):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    found = []
    for _ in range(steps):
        with context() if context else torch.enable_grad():
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert found[-1] < found[0]
    return found


def autocast(dtype):
    return lambda: torch.autocast("cpu", dtype)


@pytest.mark.parametrize(
    "context",
    [None, autocast(torch.bfloat16), autocast(torch.float16)],
    ids=["fp32", "bf16", "fp16"],
)
def test_trains_exactly_as_with_requires_grad(base, batch, context):
    expected = losses(plain(base, MIXED["mask"]), batch, context=context)
    assert losses(adapt(base), batch, context=context) == expected


@pytest.mark.parametrize("config", [MIXED, {"mask": "bitfit"}, {"mask": "full"}])
def test_pure_bf16(base, batch, config):
    model = adapt(base.to(torch.bfloat16), config)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    losses(model, batch)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(base, batch, reentrant):
    expected = losses(adapt(base), batch)
    model = adapt(base)
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:  # needs an input with a gradient, as for every PEFT method
        model.enable_input_require_grads()
    assert losses(model, batch) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["vit", "timm_vit", "dinov2"])
@pytest.mark.parametrize("mask", ["full", "bitfit", "attention_tuning", "010011100"])
def test_compile_without_graph_breaks(zoo, name, mask):
    base, images = zoo.build(name), zoo.images(name)
    torch._dynamo.reset()
    model = peft.get_peft_model(base, FairMaskConfig(mask=mask)).eval()
    expected = zoo.run(model, images)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(zoo.run(compiled, images), expected, atol=1e-6)


class Rows(torch.utils.data.Dataset):
    def __init__(self, n=12):
        self.images = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(3))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"pixel_values": self.images[i], "labels": i % 2}


def trainer(model, folder, epochs=3, **kwargs):
    arguments = transformers.TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        learning_rate=0.05,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **kwargs,
    )
    return transformers.Trainer(model, arguments, train_dataset=Rows(), eval_dataset=Rows())


def own(model):
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def test_trainer_loads_the_best_model_and_resumes(base, tmp_path):
    model = adapt(base)
    run = trainer(model, tmp_path, load_best_model_at_end=True, metric_for_best_model="loss")
    run.train()
    best = min(run.state.log_history, key=lambda row: row.get("eval_loss", 9))["eval_loss"]
    assert run.evaluate()["eval_loss"] == pytest.approx(best, abs=1e-7)
    saved = set(Path(run.state.best_model_checkpoint).iterdir())
    assert "adapter_model.safetensors" in {path.name for path in saved}

    resumed = adapt(base)
    trainer(resumed, tmp_path / "other").train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-6")
    )
    straight = adapt(base)
    trainer(straight, tmp_path / "straight").train()
    assert all(torch.equal(a, b) for a, b in zip(own(resumed), own(straight), strict=True))


WORKER = """
import copy, sys
sys.path[:0] = [{root!r}, {tests!r}]
import peft, torch, torch.distributed as dist, zoo
from fairtune_hf.tuner import FairMaskConfig
dist.init_process_group("gloo")
rank = dist.get_rank()
base = zoo.build("vit")
config = FairMaskConfig(mask={mask!r})
images, labels = zoo.images("vit", 4), torch.tensor([0, 1, 0, 1])

def train(model, images, labels, steps=3):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        model(pixel_values=images, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

alone = peft.get_peft_model(copy.deepcopy(base), copy.deepcopy(config)).train()
train(alone, images, labels)
expected = peft.get_peft_model_state_dict(alone)
model = peft.get_peft_model(base, config).train()
half = slice(2 * rank, 2 * rank + 2)
{body}
assert expected.keys() == found.keys()
for key in expected:
    assert torch.allclose(expected[key], found[key], atol=1e-5), key
if rank == 0:
    print("equal")
dist.destroy_process_group()
"""
DDP = """
train(torch.nn.parallel.DistributedDataParallel(model), images[half], labels[half])
found = peft.get_peft_model_state_dict(model)
"""
FSDP2 = """
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
mesh = init_device_mesh("cpu", (2,))
for block in model.base_model.model.vit.layers:
    fully_shard(block, mesh=mesh)
fully_shard(model, mesh=mesh)
train(model, images[half], labels[half])
whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
whole = whole if rank == 0 else {k: v.full_tensor() if hasattr(v, "full_tensor") else v
                                 for k, v in alone.state_dict().items()}
found = peft.get_peft_model_state_dict(model, state_dict=whole)
"""


@pytest.mark.slow
@pytest.mark.parametrize("body", [DDP, FSDP2], ids=["ddp", "fsdp2"])
@pytest.mark.parametrize("mask", ["011010101", "full", "bitfit"])
def test_two_processes(body, mask, tmp_path):
    code = WORKER.format(root=str(ROOT), tests=str(ROOT / "tests/tuner"), mask=mask, body=body)
    script = tmp_path / "worker.py"
    script.write_text(code)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--standalone",
            script,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "equal" in done.stdout, done.stdout + done.stderr
