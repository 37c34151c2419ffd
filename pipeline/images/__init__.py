"""Turns image references into pixels and pixels into encoded images, with limits on hostile input."""
