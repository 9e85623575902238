"""Talking portraits: speech and a still picture become frames. Knows nothing of runs or the terminal."""
