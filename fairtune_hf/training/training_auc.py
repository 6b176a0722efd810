"""How well a model orders the training rows of each group, from the scores it gave while it trained on them.

Nothing is computed twice for it: the logits are those of the training steps, so they are of augmented
pictures and of a model that changes within the epoch. For learning curves, not for results.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from fairtune_hf.metrics.resampling import auc_of_rows


class FittedScores:
    """Gathers the scores of an epoch's training rows, on the device until the epoch ends.

    Args:
        groups: Names of the group codes.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = tuple(groups)
        self._rows: list[Tensor] = []

    def note(self, logits: Tensor, labels: Tensor, group: Tensor) -> None:
        """Keep a training batch; a method's loss over other outputs than two logits a row is left out."""
        if logits.shape == (len(labels), 2):
            score = logits.detach().float().diff(dim=1)[:, 0]
            self._rows.append(torch.stack([score, labels.float(), group.float()]))

    def forget(self) -> None:
        """Begin anew: a training that failed left the rows of its last epoch."""
        self._rows = []

    def collect(self, processes: int = 1) -> dict[str, float]:
        """Return `train_auc_GROUP` of the epoch and forget its rows; every process has to call it.

        A group without both classes, or with scores that are not numbers, is left out.
        """
        rows = torch.cat(self._rows, dim=1).cpu().numpy() if self._rows else np.zeros((3, 0))
        self.forget()
        if processes > 1:
            rows = np.concatenate(gather_object([rows]), axis=1)
        score, label, code = rows
        found = {}
        for index, name in enumerate(self._groups):
            held = code == index
            auc = auc_of_rows(label[held], score[held])  # NaN without both classes
            if np.isfinite(score[held]).all() and not np.isnan(auc):
                found[f"train_auc_{name}"] = auc
        return found
