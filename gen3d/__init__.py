"""Text and images to 3D assets: representations, renderers, distillation, meshing and export."""
