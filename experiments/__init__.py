"""The application: command line, tasks, run folders, the procedural world and its benchmarks."""
