"""One file per picker, named as its type in the configuration."""
