"""The three stages of a unit as plain functions (prepare, infer, commit) and what they share."""
