"""Scoring of generated assets against the world's ground truth, with tables and pictures of the result."""
