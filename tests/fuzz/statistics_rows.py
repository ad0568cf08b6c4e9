"""Rows of iteration statistics, in both spellings and with junk for figures, as bytes choose them."""

import math

SECTIONS = ("kvCacheStats", "inflightBatchingStats", "staticBatchingStats")
KEYS = (
    *SECTIONS,
    "iter",
    "timestamp",
    "numActiveRequests",
    "numQueuedRequests",
    "numCompletedRequests",
    "maxNumActiveRequests",
    "gpuMemUsage",
    "maxNumBlocks",
    "freeNumBlocks",
    "usedNumBlocks",
    "tokensPerBlock",
    "reusedBlocks",
    "numScheduledRequests",
    "numContextRequests",
    "numGenRequests",
    "numPausedRequests",
    "numCtxTokens",
    "numGenTokens",
    "emptyGenSlots",
    "microBatchId",
    "Active Request Count",
    "Scheduled Requests",
    "Waiting Requests",
    "Max KV cache blocks",
    "Used KV cache blocks",
    "Fraction used KV cache blocks",
    "Total Context Tokens",
    "Generation Requests",
    "Empty Generation Slots",
    "KV cache transfer time",
    "Timestamp",
)
JUNK = (
    -1,
    0.5,
    -0.0,
    1e308,
    2**63,
    10**400,
    math.nan,
    math.inf,
    -math.inf,
    True,
    None,
    "",
    "7",
    "x" * 99,
    [1],
    {"a": 1},
)
TIMES = ("11-24-2026 07:17:35.123456", "12-31-9999 23:59:59.999999", "01-01-0001 00:00:00.000000")
FIGURES = (*JUNK, *TIMES)
LEAST_JUNK = 100
"""Bytes below it are counts."""


def row_of(data: bytes) -> dict[str, object]:
    """Return a row: two bytes choose a key and its figure, the last one which sections there are."""
    figures: dict[str, object] = {
        KEYS[key % len(KEYS)]: FIGURES[figure % len(FIGURES)] if figure >= LEAST_JUNK else figure
        for key, figure in zip(data[::2], data[1::2], strict=False)
    }
    sections = {name: figures for bit, name in enumerate(SECTIONS) if data and data[-1] >> bit & 1}
    return {**figures, **sections}
