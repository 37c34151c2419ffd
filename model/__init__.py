"""One UniPic replica: sizes, parts, sampling, checkpoints. Importing this package loads neither torch nor ray."""
