"""What an answer takes, from whoever knows it best: the backend, the model's tokenizer, or the lengths of the texts.

Flow: Answer → **Usage** of a piece.
"""

from tidegate.frontend.generator import Usage
from tidegate.frontend.tokens import BYTES_PER_TOKEN
from tidegate.frontend.triton.answer import Answer
from tidegate.frontend.triton.token_counts import TokenCounter


class TokenMeter:
    """Counts for one request."""

    def __init__(self, prompt: str, counter: TokenCounter | None, *, streamed: bool) -> None:
        """`streamed`: whether the answer comes in many responses, of one token each as a rule."""
        self._prompt = prompt
        self._counter = counter
        self._streamed = streamed
        self._prompt_tokens: int | None = None
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Take the next part of the answer."""
        if self._counter is not None:
            self._texts.append(text)

    async def so_far(self, answer: Answer) -> Usage:
        """Return the usage up to here: only the backend knows the tokens of a part."""
        return await self._usage(answer, answer.output_tokens)

    async def whole(self, answer: Answer) -> Usage:
        """Return the usage of the whole answer, all of whose parts have been added."""
        tokens = answer.output_tokens
        if tokens is None and self._counter is not None:
            tokens = await self._counter.count_answer("".join(self._texts))
        return await self._usage(answer, tokens)

    async def _usage(self, answer: Answer, completion_tokens: int | None) -> Usage:
        prompt_tokens = answer.input_tokens
        known = prompt_tokens is not None or self._counter is not None
        if prompt_tokens is None:
            prompt_tokens = self._prompt_tokens = self._prompt_tokens or await self._count_prompt()
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=self._estimate(answer) if completion_tokens is None else completion_tokens,
            cached_tokens=0,
            estimated=not known or completion_tokens is None,
        )

    async def _count_prompt(self) -> int:
        """Return the tokens of the prompt as far as they can be had here; once, since it may be long."""
        if self._counter is not None:
            return await self._counter.count_prompt(self._prompt)
        return _tokens(len(self._prompt.encode(errors="replace")))

    def _estimate(self, answer: Answer) -> int:
        return answer.responses if self._streamed else _tokens(answer.text_bytes)


def _tokens(text_bytes: int) -> int:
    return -(-text_bytes // BYTES_PER_TOKEN)
