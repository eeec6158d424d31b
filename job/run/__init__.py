"""What every stage needs: the run folder and its facts, exit codes, the machine, signals."""
