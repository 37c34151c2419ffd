"""Reads a job file: YAML and overrides become one frozen job, or a list of all faults with their places."""
