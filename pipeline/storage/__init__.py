"""Reads and writes bytes: local files and S3 behind one class, with errors, options and Parquet access."""
