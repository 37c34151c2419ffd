"""What commands share on a terminal: options, progress, log lines, signals, exit codes and number formats."""
