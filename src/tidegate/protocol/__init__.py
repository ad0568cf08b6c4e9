"""The Model Server Protocol as data: signals, selectors, engine mappings, composite formulas, the exposition scanner."""
