"""A package, so that no other one of this name, which some wheels install, takes its place."""
