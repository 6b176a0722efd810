"""What is handed on: the model card, and the push to the Hugging Face Hub."""

from .card import render_card
from .dataset_card import render_dataset_card
from .templates import template_folder

__all__ = ["render_card", "render_dataset_card", "template_folder"]
