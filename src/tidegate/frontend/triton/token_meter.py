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
        self._counted_prompt: int | None = None
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
        if prompt_tokens is None and self._counter is not None:
            if self._counted_prompt is None:
                self._counted_prompt = await self._counter.count_prompt(self._prompt)
            prompt_tokens = self._counted_prompt
        return Usage(
            prompt_tokens=_tokens(len(self._prompt.encode(errors="replace")))
            if prompt_tokens is None
            else prompt_tokens,
            completion_tokens=self._estimate(answer) if completion_tokens is None else completion_tokens,
            cached_tokens=0,
            estimated=prompt_tokens is None or completion_tokens is None,
        )

    def _estimate(self, answer: Answer) -> int:
        return answer.responses if self._streamed else _tokens(answer.text_bytes)


def _tokens(text_bytes: int) -> int:
    return -(-text_bytes // BYTES_PER_TOKEN)
