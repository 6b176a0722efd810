"""Several adapters, merging, deleting, copying, other processes, and files that do not fit."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fairtune_hf.tuner import FairMaskConfig, FairMaskLayer, _register

ROOT = Path(__file__).resolve().parents[2]
A = {"mask": {"layernorm": "111", "attention": "100", "mlp": "000"}}
B = {"mask": {"layernorm": "000", "attention": "011", "mlp": "110"}, "train_also": ["cls_token"]}
C = {"mask": "bitfit"}


@pytest.fixture(params=["vit", "timm_vit"])
def name(request):
    return request.param


@pytest.fixture
def base(zoo, name):
    return zoo.build(name)


@pytest.fixture
def said(zoo, name):
    """What a model says about fixed images."""
    images = zoo.images(name)
    return lambda model: zoo.run(model, images)


def adapt(base, config, **kwargs):
    return peft.get_peft_model(copy.deepcopy(base), FairMaskConfig(**config), **kwargs).eval()


def own(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def three(base, perturb, said, tmp_path):
    """A model with three adapters of different masks, and what each says."""
    alone = {}
    for seed, (adapter, config) in enumerate([("a", A), ("b", B), ("c", C)]):
        model = perturb(adapt(base, config), seed)
        alone[adapter] = said(model)
        model.save_pretrained(tmp_path / adapter)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "a", adapter_name="a")
    for adapter in "bc":
        model.load_adapter(tmp_path / adapter, adapter)
    return model.eval(), alone


def test_adapters_with_different_masks_side_by_side(three, base, said):
    model, alone = three
    for adapter in "abcba":
        model.set_adapter(adapter)
        assert torch.equal(said(model), alone[adapter])
    assert len({value.sum().item() for value in alone.values()}) == 3
    with model.disable_adapter():
        assert torch.equal(said(model), said(base))


def test_adding_an_adapter_leaves_the_active_one_trainable(base):
    model = adapt(base, A)
    before = own(model)
    model.add_adapter("other", FairMaskConfig(**B))
    assert own(model) == before
    model.set_adapter("other")
    assert own(model)
    assert all(".other." in name for name in own(model))


def test_merging_each_adapter_in_turn(three, base, said):
    model, alone = three
    for adapter in "abc":
        model.set_adapter(adapter)
        model.merge_adapter(safe_merge=True)
        assert torch.equal(said(model), alone[adapter])
        model.unmerge_adapter()
    assert torch.equal(said(model.unload()), said(base))


def test_merging_another_adapter_takes_the_first_one_out(three, said):
    model, alone = three
    model.merge_adapter(["a"])
    with pytest.warns(UserWarning, match="Unmerging first"):
        model.merge_adapter(["b"])
    assert torch.equal(said(model), alone["b"])


def test_two_adapters_cannot_be_merged_or_run_at_once(three, said):
    model, _ = three
    with pytest.raises(ValueError, match="only one can be merged at a time"):
        model.merge_adapter(["a", "b"])
    model.base_model.set_adapter(["a", "b"])
    with pytest.raises(ValueError, match="Expected one active FairMask adapter"):
        said(model)


def test_delete_falls_back_to_the_same_adapter_everywhere(three, said):
    model, alone = three
    with pytest.warns(UserWarning, match="Setting active adapter to b"):
        model.delete_adapter("a")
    assert torch.equal(said(model), alone["b"])
    assert not any(".a." in name for name, _ in model.named_parameters())
    model.delete_adapter("c")
    assert torch.equal(said(model), alone["b"])


def test_adapter_added_while_another_is_merged_starts_from_the_base(base, perturb, said):
    # LNTuning starts it from the merged weights: issue 3423 of PEFT
    model = perturb(adapt(base, {"mask": "full_blocks"}))
    model.merge_adapter()
    model.add_adapter("fresh", FairMaskConfig(mask="full_blocks"))
    model.unmerge_adapter()
    model.set_adapter("fresh")
    assert torch.equal(said(model), said(base))


def test_save_and_load_while_merged(three, base, said, tmp_path):
    # LNTuning saves the base's weights while merged
    model, alone = three
    model.set_adapter("b")
    model.merge_adapter()
    model.save_pretrained(tmp_path / "merged")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "merged" / "b")
    assert torch.equal(said(loaded), alone["b"])
    model.load_adapter(tmp_path / "a", "again")
    model.unmerge_adapter()
    model.set_adapter("again")
    assert torch.equal(said(model), alone["a"])


def test_disabling_unmerges(three, base, said):
    model, alone = three
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(said(model), said(base))
    assert torch.equal(said(model), alone["a"])


def test_disabling_puts_the_base_values_back_at_once(three, base):
    # also for code that reads the weights without running the model
    model, _ = three
    originals = dict(base.named_parameters())
    model.merge_adapter()
    with model.disable_adapter():
        layers = [m for m in model.modules() if isinstance(m, FairMaskLayer)]
        assert not any(layer.merged for layer in layers)
        values = peft.get_base_model_state_dict(model)
        assert all(torch.equal(values[k], originals[k]) for k in values if k in originals)


def test_merging_while_disabled_has_no_effect_on_what_is_said(three, base, said):
    model, alone = three
    with model.disable_adapter():
        model.merge_adapter()
        assert torch.equal(said(model), said(base))
    assert torch.equal(said(model), alone["a"])


def test_safe_merge_refuses_values_that_are_not_finite_and_changes_nothing(base, said):
    model = adapt(base, A)
    broken = next(layer for layer in model.modules() if isinstance(layer, FairMaskLayer))
    with torch.no_grad():
        broken._own_parameters("default")[0][1].fill_(float("nan"))
    with pytest.raises(ValueError, match="a value is not finite"):
        model.merge_adapter(safe_merge=True)
    assert not broken.merged
    assert torch.equal(said(model.unload()), said(base))


def test_state_dict_round_trip_with_direct_injection(base, perturb, said):
    model = perturb(peft.inject_adapter_in_model(FairMaskConfig(**B), copy.deepcopy(base)))
    values = peft.get_peft_model_state_dict(model)
    other = peft.inject_adapter_in_model(
        FairMaskConfig(**B), copy.deepcopy(base), adapter_name="x", state_dict=values
    )
    result = peft.set_peft_model_state_dict(other, values, adapter_name="x")
    assert not result.unexpected_keys
    assert torch.equal(said(other), said(model))


def test_low_cpu_mem_usage_puts_only_the_copies_on_meta(base):
    model = peft.inject_adapter_in_model(
        FairMaskConfig(**B), copy.deepcopy(base), low_cpu_mem_usage=True
    )
    meta = {name for name, p in model.named_parameters() if p.is_meta}
    assert meta
    assert meta == own(model)


@pytest.mark.parametrize("config", [A, B, C])
def test_pickle_and_deepcopy(config, base, perturb, said):
    model = perturb(adapt(base, config))
    expected = said(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(said(twin), expected)
        assert own(twin) == own(model)
        assert twin.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
        perturb(twin)
        assert not torch.equal(said(twin), expected)
    assert torch.equal(said(model), expected)


@pytest.mark.slow
def test_a_fresh_process_loads_it(base, perturb, said, name, tmp_path):
    model = perturb(adapt(base, B))
    model.save_pretrained(tmp_path)
    torch.save(said(model), tmp_path / "said.pt")
    code = (
        f"import sys, torch, peft; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests/tuner')!r}]\n"
        "import fairtune_hf.tuner, zoo\n"
        f"model = peft.PeftModel.from_pretrained(zoo.build({name!r}), {str(tmp_path)!r}).eval()\n"
        f"said = zoo.run(model, zoo.images({name!r}))\n"
        f"assert torch.equal(said, torch.load({str(tmp_path / 'said.pt')!r}))\n"
        "print('equal')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal", done.stderr


def test_auto_peft_model(zoo, perturb, tmp_path):
    base, images = zoo.build("vit"), zoo.images("vit")
    base.save_pretrained(tmp_path / "base")
    model = perturb(adapt(type(base).from_pretrained(tmp_path / "base"), B))
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.AutoPeftModel.from_pretrained(tmp_path / "adapter")
    assert isinstance(loaded.base_model.model, type(base))
    assert torch.equal(zoo.run(loaded, images), zoo.run(model, images))


def test_transformers_own_adapter_methods(zoo, perturb, tmp_path):
    base, images = zoo.build("vit"), zoo.images("vit")
    before = zoo.run(base, images)
    model = copy.deepcopy(base)
    model.add_adapter(FairMaskConfig(**A), "a")
    after = zoo.run(perturb(model), images)
    assert not torch.equal(after, before)
    model.disable_adapters()
    assert torch.equal(zoo.run(model, images), before)
    model.enable_adapters()
    assert torch.equal(zoo.run(model, images), after)
    model.save_pretrained(tmp_path)
    other = copy.deepcopy(base)
    other.load_adapter(tmp_path, "x")
    assert torch.equal(zoo.run(other, images), after)
    other.add_adapter(FairMaskConfig(**B), "y")
    other.set_adapter("x")
    assert torch.equal(zoo.run(other, images), after)
    model.delete_adapter("a")
    assert torch.equal(zoo.run(model, images), before)


def test_other_methods_load_through_transformers_still_works(zoo, tmp_path):
    base = zoo.build("vit")
    base.save_pretrained(tmp_path / "base")
    model = copy.deepcopy(base)
    model.add_adapter(FairMaskConfig(**A), "a")
    peft.get_peft_model(
        copy.deepcopy(base), peft.LoraConfig(target_modules=["fc1"], r=2)
    ).save_pretrained(tmp_path / "lora")
    model.delete_adapter("a")
    fresh = copy.deepcopy(base)
    info = fresh.load_adapter(tmp_path / "lora")
    assert not info.missing_keys


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip_vision"])
def test_attention_implementation_reaches_the_copies(family, zoo, perturb):
    base, images = zoo.build(family), zoo.images(family)
    model = perturb(adapt(base, {"mask": "attention"}))
    expected = zoo.run(model, images)
    bare = model.base_model.model
    bare.set_attn_implementation("eager")
    copies = [  # the module that attends is the copy itself or, in older releases, a part of it
        part
        for module in model.modules()
        if isinstance(module, FairMaskLayer)
        for part in module.fairmask_copies["default"].modules()
        if hasattr(part, "is_causal")
    ]
    assert len(copies) == 3
    assert all(c.config._attn_implementation == "eager" for c in copies)
    assert torch.allclose(zoo.run(model, images), expected, atol=1e-6)


def test_task_type_that_wraps_the_head_again_is_refused(base):
    with pytest.raises(ValueError, match="leave task_type unset"):
        adapt(base, {"mask": "none", "modules_to_save": ["head", "classifier"]})


@pytest.fixture
def saved(base, perturb, tmp_path):
    """The folder of a saved adapter."""
    perturb(adapt(base, A)).save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, change):
    values = load_file(folder / "adapter_model.safetensors")
    change(values)
    save_file(values, folder / "adapter_model.safetensors")


HEAD_BIAS = "base_model.model.head.bias"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda values: values.pop(HEAD_BIAS), "missing keys: head.bias"),
        (
            lambda values: values.update({"base_model.model.nonsense": torch.zeros(1)}),
            "unexpected keys: nonsense",
        ),
        (
            lambda values: values.update({HEAD_BIAS: torch.zeros(5)}),
            "head.bias has shape (5,) in the file and (2,) in the model",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_file_that_does_not_fit_is_an_error(change, text, saved, base):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=re.escape(text)):
        peft.PeftModel.from_pretrained(copy.deepcopy(base), saved)
    if hasattr(base, "load_adapter"):
        with pytest.raises(ValueError, match=re.escape(text)):
            copy.deepcopy(base).load_adapter(saved)


def test_another_depth_is_an_error(zoo, saved):
    with pytest.raises(ValueError, match="expected 5 bits for part 'layernorm'"):
        peft.PeftModel.from_pretrained(zoo._timm("vit_tiny_patch16_224", depth=5), saved)


def test_registering_twice_leaves_one_member():
    from peft import PeftType

    from fairtune_hf.tuner import FairMaskModel

    member = PeftType.FAIRMASK
    _register.register(FairMaskConfig, FairMaskModel)
    assert _register.add_peft_type() is member is PeftType("FAIRMASK") is PeftType["FAIRMASK"]
    assert member.value == "FAIRMASK"
    assert list(PeftType).count(member) == 1
    assert pickle.loads(pickle.dumps(member)) is member
    assert peft.PEFT_TYPE_TO_CONFIG_MAPPING[member] is FairMaskConfig
