"""How the embedded model is trained: architectures, the resumable loop, and one recipe a part."""
