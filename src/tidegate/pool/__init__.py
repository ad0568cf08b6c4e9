"""The table of endpoints, and what feeds it.

Signals path:   arguments or file → discovery → scraper (one task per endpoint) → LoadSignals → **table.Pool**
Request path:   Pool.view → picker → Pool.dispatch
Outcomes path:  gateway's access log → outcomes.Outcome → Pool.release

`table` holds the columns that a pick reads, `row` what one endpoint reported and what was sent there since: both pure,
the time comes in as `now`. `discovery` and `scraper` do the I/O, each in one task group of their own.
"""
