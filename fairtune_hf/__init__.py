"""FairTune (Dutt et al., ICLR 2024) as a Hugging Face PEFT plugin."""

__version__ = "0.1.0"
