"""One file per command: arguments in, objects wired, errors out."""
