"""All rules, in the order of docs/check.md."""

from tidegate.protocol.conformance import (
    api,
    consistency,
    kinds,
    lora,
    orca,
    presence,
    reach,
    series,
    syntax,
    transport,
    values,
    watching,
)
from tidegate.protocol.conformance.finding import Rule

RULES: tuple[Rule, ...] = (
    *reach.RULES,
    *presence.RULES,
    *values.RULES,
    *kinds.RULES,
    *consistency.RULES,
    *series.RULES,
    *lora.RULES,
    *syntax.RULES,
    *transport.RULES,
    *api.RULES,
    *orca.RULES,
    *watching.RULES,
)
