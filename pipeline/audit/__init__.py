"""Reads a finished output: verify, repair, trace, replay, status and export."""
