"""Resampling: rows drawn with replacement so that every cell of label and group comes equally often."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fairtune_hf.baselines.method import Method

By = Literal["balanced", "group", "class"]


def cell_weights(labels: Tensor, group: Tensor, by: By) -> Tensor:
    """Weight each row by 1 / the number of rows in its cell: group, class, or both ("balanced").

    Args:
        labels: 0 or 1, `(n,)`.
        group: Group codes, `(n,)`.
        by: What makes a cell.

    Returns:
        `(n,)` float64; the weights of a cell add up to 1.
    """
    cells = {"balanced": 2 * group + labels, "group": group, "class": labels}[by]
    counts = torch.bincount(cells)
    return 1.0 / counts[cells].double()


class Resampling(Method):
    """Plain cross entropy on rows drawn with replacement, as many an epoch as there are rows.

    Args:
        by: What comes equally often: cells of label and group, groups, or classes (MEDFAIR's sweep).
    """

    source = "Idrissi et al., CLeaR 2022; MEDFAIR (Zong et al., ICLR 2023), `resampling`"

    def __init__(self, *, by: By = "balanced") -> None:
        if by not in ("balanced", "group", "class"):
            raise ValueError(f"by: expected balanced, group or class, got {by!r}. Choose one.")
        self.by = by

    def row_weights(self, labels: Tensor, group: Tensor) -> Tensor:
        """Weight each row by 1 / the number of rows in its cell."""
        return cell_weights(labels, group, self.by)
