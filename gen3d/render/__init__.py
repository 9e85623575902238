"""Differentiable renderers: volumes by ray marching, meshes by rasterisation."""
