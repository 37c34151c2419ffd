"""Trains the small checkpoint on the shapes world."""
