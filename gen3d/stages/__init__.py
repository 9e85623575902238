"""Stages of a recipe, for ``gen3d.optimize.optimize``; each keeps all that changes in the State."""
