"""Watches workers: which rows were in work when one died, which replica may load, what takes too long."""
