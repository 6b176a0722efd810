"""Helpers of the tuner's tests, as fixtures because tests are imported one by one."""

import importlib.util
from pathlib import Path

import pytest
import torch


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def zoo():
    """Small models of every supported family."""
    return _load("zoo")


@pytest.fixture(scope="session")
def perturb():
    """Give every trained parameter values of its own, as training would."""

    def change(model, seed=7):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model

    return change
