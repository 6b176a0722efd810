"""What is handed on: the model card, and the push to the Hugging Face Hub."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from .card import render_card as render_card
    from .dataset_card import render_dataset_card as render_dataset_card
    from .push import PushPlan as PushPlan
    from .push import plan_push as plan_push
    from .push import push_run as push_run
    from .templates import template_folder as template_folder

__getattr__, __dir__, __all__ = attach(__name__, __file__)
