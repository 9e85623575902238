"""Score distillation: one loss per file, each a pure function of predictions, latents, timestep and noise.

A gradient in latent space becomes a loss by ``gen3d.distillation.inject``; regularisers and timestep annealing are
beside them.
"""
