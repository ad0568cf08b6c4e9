"""The table of endpoints, and what feeds it: discovery, the scraper, outcomes."""
