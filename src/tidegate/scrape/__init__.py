"""One bounded HTTP GET of an exposition: keep-alive, limits, timeout, and the probing of paths."""
