"""The Hydra config tree, shipped as package data. It holds names and values, never code to run."""
