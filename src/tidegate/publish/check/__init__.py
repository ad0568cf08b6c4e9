"""Asks a server what the rules of the Model Server Protocol need to know, and judges it by them.

Flow: URL → fetching, asking → evidence → protocol.conformance → report.ServerReport.
"""
