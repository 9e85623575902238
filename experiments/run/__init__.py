"""What every run needs: its folder, checkpoints, seeds, progress, provenance and report.

Nothing is imported here, so that the command line can use the light parts without loading torch.
"""
