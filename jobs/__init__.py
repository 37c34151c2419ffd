"""The job file and the `unipic` command line."""
