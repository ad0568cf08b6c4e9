"""One bounded HTTP GET of an exposition: keep-alive, limits, timeout, and the probing of paths.

Signals path: URLs of a server → probe.ExpositionSource → http.HttpConnection → answer.AnswerReader → protocol → Scrape.

In goes where to look; out come LoadSignals with the time their GET began, or a ScrapeError whose `reason` tells
whether the server or only its metrics are at fault.
"""
