"""Reads a job file: YAML and overrides to one frozen job, or every fault with its place."""
