"""What every stage needs, whatever it does: the run folder, errors and exit codes, the machine, signals."""
