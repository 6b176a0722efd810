"""What is handed on: the model card, and the push to the Hugging Face Hub."""

from .card import render_card
from .dataset_card import render_dataset_card
from .push import PushPlan, plan_push, push_run
from .templates import template_folder

__all__ = [
    "PushPlan",
    "plan_push",
    "push_run",
    "render_card",
    "render_dataset_card",
    "template_folder",
]
