"""Shared diffusion backbones: one interface over ordinary diffusers and transformers models."""
