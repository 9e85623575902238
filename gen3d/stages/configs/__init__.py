"""Settings of the stages, gathered in `gen3d.stages.config`; nothing here needs torch before `build`."""
