"""Watches workers: what was in hand when one died, who may load a model, what takes too long."""
