"""One file per command: arguments in, objects wired, errors out. Nothing else builds objects from configuration.

`main` imports a command only when it is called, and turns a TidegateError into one line and exit status 2.
"""
