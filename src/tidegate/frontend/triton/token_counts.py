"""How many tokens a text has, by the model's own tokenizer.

Flow: tokenizer.json → **TokenCounter**; text → count. Needs tokenizers, of the extra `triton`.
"""

import asyncio
from pathlib import Path

from tokenizers import Tokenizer

from tidegate.protocol.errors import ConfigError

MAX_FILE_BYTES = 2**27
COUNTED_AT_ONCE = 4_000
"""Letters up to which counting does not wait for a thread."""


class TokenCounter:
    """Counts as the model's tokenizer does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def count_prompt(self, text: str) -> int:
        """Return the tokens of a prompt, with those that the tokenizer adds."""
        return await self._count(text, special=True)

    async def count_answer(self, text: str) -> int:
        """Return the tokens of an answer, or of a part of it."""
        return await self._count(text, special=False)

    async def _count(self, text: str, *, special: bool) -> int:
        if len(text) <= COUNTED_AT_ONCE:
            return self._count_now(text, special)
        return await asyncio.to_thread(self._count_now, text, special)

    def _count_now(self, text: str, special: bool) -> int:
        # A batch of one: only for batches the tokenizer lets other threads run meanwhile.
        text = text.encode(errors="replace").decode()
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        return len(encoding.ids)


def read_tokenizer(path: Path) -> TokenCounter:
    """Read a tokenizer.json, as Hugging Face's models have it.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    fix = "Give the model's tokenizer.json."
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes", where=str(path), fix=fix)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), fix=fix) from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise ConfigError(f"no tokenizer: {error}", where=str(path), fix=fix) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TokenCounter(tokenizer)
