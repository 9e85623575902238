"""Priors that need what the libraries do not know: the procedural world."""
