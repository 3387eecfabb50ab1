"""What training stages have in common: settings, set-up, options, the loop, checkpoints, and the proof of training."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "safetensors", "datasets")
"""The libraries that training computes with."""
