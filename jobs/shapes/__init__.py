"""Evaluation and demo on the shapes world, through the same pipeline as any job."""
