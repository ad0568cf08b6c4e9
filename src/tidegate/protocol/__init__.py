"""The Model Server Protocol as data: signals, selectors, engine mappings, composites, the exposition scanner.

Signals path: exposition (bytes) → exposition.scan → load.parse_signals, by an engines.EngineMapping → LoadSignals.
Publishing path: counts of a batch manager → composites → what the first source of each signal in engines names.

Pure and standard library only: it also runs inside a model server's container.
"""
