"""Diffusion models as the 3D side sees them: what they think of pictures taken by given cameras."""
