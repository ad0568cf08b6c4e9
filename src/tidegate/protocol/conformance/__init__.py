"""Whether a server keeps the Model Server Protocol: rules as pure functions over what it answered.

Flow: answers of a server → strict.read_strictly, load.parse_load → Evidence → one module of rules per theme → Findings.

Every rule has an id that stays, and a level: an error means that a picker that follows the protocol is misled. The
rules are listed in `catalogue` and in docs/check.md.
"""
