"""One file per scorer, named as its type in the configuration."""
