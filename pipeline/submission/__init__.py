"""Runs jobs on a Ray cluster elsewhere: brings the package along, submits, attaches, follows and stops."""
