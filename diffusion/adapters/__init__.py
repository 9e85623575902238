"""Adapters: what is put onto an unmodified `UNet2DConditionModel`, one file each."""
