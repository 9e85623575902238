"""Score distillation: one loss per file, each a pure function of a model's scores.

A gradient in latent space becomes a loss by `gen3d.distillation.inject`; timestep annealing is beside it.
"""
