"""Score another data set with a run's adapter: external validation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from peft import PeftModel

from fairtune_hf.data import ImageTable
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.training.adapter import require_whole_adapter
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.refit import describe_predictions
from fairtune_hf.training.trainer import FairTrainer


def score_external(
    folder: RunFolder, table: ImageTable, backbone: Backbone, arguments: FitArguments
) -> pd.DataFrame:
    """Score every row of a table with the run's adapter, whatever its split.

    Args:
        folder: A run with an adapter.
        table: The other data set.
        backbone: The base the adapter was trained on.
        arguments: The run's settings; only the precision matters here.

    Returns:
        Predictions laid out like the run's own, with the split called `external`.

    Raises:
        FileNotFoundError: The run has no adapter of its choice.
        ValueError: The adapter is damaged.
    """
    require_adapter(folder)
    model = PeftModel.from_pretrained(backbone.copy_with_new_head(), str(folder.adapter))
    seed = folder.read().choice.seed or 0
    trainer = FairTrainer(
        model=model,
        args=arguments.to_training_arguments(folder.path, learning_rate=0.0, seed=seed),
    )
    rows = ImageDataset(
        table,
        image_mean=backbone.image_mean,
        image_std=backbone.image_std,
        image_size=backbone.image_size,
    )
    scores: np.ndarray = trainer.predict_scores(rows)
    return describe_predictions(table, "external", seed, scores)


def require_adapter(folder: RunFolder) -> None:
    """Refuse a run without the whole adapter of its choice.

    Raises:
        FileNotFoundError: The run has no adapter of its choice.
        ValueError: The search has made no choice, or the adapter is damaged.
    """
    require_whole_adapter(folder, folder.read_chosen().choice)
