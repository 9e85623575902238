"""From where the pictures of a distillation step are taken."""
