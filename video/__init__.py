"""Frames to files and back. Knows nothing of models, runs or the terminal."""
