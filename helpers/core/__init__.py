"""What everything else stands on: a pilot, its rows, files, text, this machine, runs, pictures."""
