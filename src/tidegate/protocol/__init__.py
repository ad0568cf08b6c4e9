"""The Model Server Protocol as data: signals, selectors, engine mappings, composites, the exposition scanner."""
