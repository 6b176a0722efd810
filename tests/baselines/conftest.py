"""A tiny data set on the CPU with the face of ImageDataset, and tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification


class Rows:
    """Rows of any inputs with labels and group codes."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor, group: torch.Tensor) -> None:
        self.inputs, self.labels, self.group = inputs, labels, group
        self.groups = tuple("abcd"[: int(group.max()) + 1])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        rows = torch.as_tensor(list(indices))
        return {
            "pixel_values": self.inputs[rows],
            "labels": self.labels[rows],
            "group": self.group[rows],
        }


class TinyNetwork(nn.Module):
    """conv, ReLU, linear, ReLU, linear in float64; `hidden` runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2, stride=2)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)
        self.double()

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        features = torch.relu(self.conv(pixel_values)).flatten(1)
        return SimpleNamespace(logits=self.head(torch.relu(self.hidden(features))))


@pytest.fixture
def rows() -> Rows:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (24,), generator=generator)
    inputs = torch.randn(24, 1, 4, 4, generator=generator).double() + labels.view(-1, 1, 1, 1)
    return Rows(inputs, labels, torch.arange(24) % 2)


@pytest.fixture
def network() -> TinyNetwork:
    torch.manual_seed(3)
    return TinyNetwork()


def small_vit(**changes: int) -> ViTForImageClassification:
    torch.manual_seed(0)
    settings = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 16,
        "patch_size": 8,
        "num_labels": 2,
    }
    return ViTForImageClassification(ViTConfig(**{**settings, **changes}))


@pytest.fixture
def vit() -> ViTForImageClassification:
    return small_vit()


@pytest.fixture
def vit_rows() -> Rows:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 2, (40,), generator=generator)
    inputs = torch.randn(40, 3, 16, 16, generator=generator) + labels.view(-1, 1, 1, 1)
    return Rows(inputs, labels, (torch.arange(40) // 2) % 2)
