"""The paged KV cache: blocks with prefix reuse, reference counts and least-recently-used eviction.

A block is in one of three states, and ``used + cached + free = num_blocks`` at all times:

- used: some sequence holds it, either privately or, for a block of a prompt, shared by its hash;
- cached: nobody holds it, but its content is kept under its hash until room is needed;
- free: empty.

TensorRT-LLM's statistics count cached blocks as free, since they can be had at any time; so does `available_blocks`.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice


def hash_blocks(token_ids: Sequence[int], tokens_per_block: int) -> tuple[int, ...]:
    """Return the chained hashes of the full blocks of a prompt, in order.

    Each hash covers the block and everything before it, so equal hashes mean equal prefixes. A last block that is
    not full has none: it cannot be shared.
    """
    hashes: list[int] = []
    parent = 0
    for start in range(0, len(token_ids) - tokens_per_block + 1, tokens_per_block):
        parent = hash((parent, *token_ids[start : start + tokens_per_block]))
        hashes.append(parent)
    return tuple(hashes)


@dataclass(slots=True)
class BlockTable:
    """The blocks that one sequence holds."""

    shared: list[int] = field(default_factory=list)
    """Hashes of the blocks that others may read too, in the order of the prompt."""
    private: int = 0
    """Blocks that only this sequence reads; count, >= 0."""

    @property
    def blocks(self) -> int:
        return len(self.shared) + self.private


class KvCache:
    """Hands out blocks. Blocks are counted, not numbered: which one it is makes no difference to time."""

    def __init__(self, num_blocks: int, tokens_per_block: int) -> None:
        self.num_blocks = num_blocks
        self.tokens_per_block = tokens_per_block
        self.reused_blocks = 0
        """Prompt blocks found in the cache since the start; count."""
        self.missed_blocks = 0
        """Full prompt blocks that had to be computed; count."""
        self.new_blocks = 0
        """Blocks handed out empty; count."""
        self._holders: dict[int, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._private = 0

    @property
    def used_blocks(self) -> int:
        return len(self._holders) + self._private

    @property
    def cached_blocks(self) -> int:
        return len(self._cached)

    @property
    def available_blocks(self) -> int:
        """Blocks that can be handed out, free or cached; count, >= 0."""
        return self.num_blocks - self.used_blocks

    @property
    def free_blocks(self) -> int:
        return self.available_blocks - self.cached_blocks

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks hold that many tokens."""
        return -(-tokens // self.tokens_per_block)

    def count_held(self, hashes: Sequence[int]) -> int:
        """Return how many leading blocks of a prompt other sequences hold now: sharing them takes no room."""
        held = 0
        for block in hashes:
            if block not in self._holders:
                break
            held += 1
        return held

    def open(self, hashes: Sequence[int]) -> BlockTable:
        """Start a sequence with as many leading blocks of its prompt as are in the cache."""
        table = BlockTable()
        for block in hashes:
            if block in self._holders:
                self._holders[block] += 1
            elif block in self._cached:
                del self._cached[block]
                self._holders[block] = 1
            else:
                break
            table.shared.append(block)
        self.reused_blocks += len(table.shared)
        self.missed_blocks += len(hashes) - len(table.shared)
        return table

    def grow(self, table: BlockTable, blocks: int) -> bool:
        """Let the sequence hold that many blocks in all; False, and nothing changed, when there is no room."""
        wanted = blocks - table.blocks
        if wanted <= 0:
            return True
        if wanted > self.available_blocks:
            return False
        for _ in range(wanted - self.free_blocks):
            self._cached.popitem(last=False)
        table.private += wanted
        self._private += wanted
        self.new_blocks += wanted
        return True

    def share(self, table: BlockTable, hashes: Sequence[int]) -> None:
        """Offer the computed blocks of a prompt to later prompts; `hashes` begin with those the table reused."""
        for block in islice(hashes, len(table.shared), None):
            # A copy that another sequence computed meanwhile stays the cached one; ours remains private.
            if block not in self._holders and block not in self._cached:
                self._holders[block] = 1
                self._private -= 1
                table.private -= 1
                table.shared.append(block)

    def release(self, table: BlockTable) -> None:
        """Give all blocks of a sequence back; shared ones stay cached."""
        # The end of a prompt is cached first, and so evicted first: without its beginning it could not be found.
        for block in reversed(table.shared):
            holders = self._holders[block] - 1
            if holders:
                self._holders[block] = holders
            else:
                del self._holders[block]
                self._cached[block] = None
        self._private -= table.private
        table.shared.clear()
        table.private = 0
