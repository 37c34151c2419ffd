"""The `unipic` commands, one file each."""
