"""Denoisers: the networks under a backbone, one family per file, behind one protocol (`base.Denoiser`)."""
