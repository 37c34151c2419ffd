"""What commands share on a terminal: options, progress, signals, exit codes, number formats."""
