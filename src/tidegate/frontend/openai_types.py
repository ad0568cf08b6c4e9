"""The bodies of OpenAI's Completions and Chat Completions, as far as a text model can obey them.

What it cannot do is refused, not passed over: a client that asks for JSON and gets prose would never learn why. Fields
that a generator does not heed are checked all the same: better to hear of nonsense from a simulated server than from
the real one.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from tidegate.frontend.errors import ApiError
from tidegate.frontend.generator import Sampling

TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
_MaxTokens = Annotated[int, Meta(ge=1, lt=2**31)] | None
_Penalty = Annotated[float, Meta(ge=-2, le=2)] | None

MAX_STOPS = 16
"""Most texts to stop at; OpenAI takes 4."""
MAX_STOP_LENGTH = 256


class StreamOptions(Struct, frozen=True):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None


class _Body(Struct, frozen=True, kw_only=True):
    """What both kinds of bodies have."""

    model: str
    max_tokens: _MaxTokens = None
    n: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, lt=2**31)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=MAX_STOPS)] | None = None
    frequency_penalty: _Penalty = None
    presence_penalty: _Penalty = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, Any] | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def parse_sampling(self) -> Sampling:
        """Return how tokens are to be chosen.

        Raises:
            ApiError: a text to stop at is empty or too long, or `min_tokens` is above the limit.
        """
        limit = self.token_limit
        if self.min_tokens and limit is not None and self.min_tokens > limit:
            message = f"min_tokens is {self.min_tokens}, more than the {limit} tokens allowed"
            raise ApiError(message, status=400, param="min_tokens")
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k if self.top_k and self.top_k > 0 else None,
            seed=self.seed,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
            stop=_parse_stops(self.stop),
            min_tokens=self.min_tokens,
            ignore_eos=bool(self.ignore_eos),
        )

    def refuse_what_cannot_be_done(self) -> None:
        """Raise ApiError for what would change the answer, and is not there."""
        self._refuse("n", self.n not in (None, 1), "this server gives one answer per request")
        self._refuse("logit_bias", bool(self.logit_bias), "tokens cannot be made likelier here")

    def _refuse(self, field: str, asked: bool, reason: str) -> None:
        if asked:
            raise ApiError(f"{field} is not supported: {reason}. Leave it out", status=400, param=field)

    @property
    def token_limit(self) -> int | None:
        """Tokens to generate at most; None where the body does not say."""
        return self.max_tokens


def _parse_stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    for one in stops:
        if not 0 < len(one) <= MAX_STOP_LENGTH:
            message = f"A text to stop at has 1 to {MAX_STOP_LENGTH} letters, this one {len(one)}"
            raise ApiError(message, status=400, param="stop")
    return stops


class CompletionBody(_Body, frozen=True, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[Any]
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1)] | None = None
    logprobs: Annotated[int, Meta(ge=0)] | None = None
    suffix: str | None = None

    def refuse_what_cannot_be_done(self) -> None:
        """Raise ApiError for what would change the answer, and is not there."""
        super().refuse_what_cannot_be_done()
        self._refuse("best_of", self.best_of not in (None, 1), "this server makes one answer per request")
        self._refuse("logprobs", self.logprobs is not None, "this server does not tell how likely tokens were")
        self._refuse("suffix", bool(self.suffix), "this server only continues a prompt")
        self._refuse("echo", bool(self.echo) and not isinstance(self.parse_prompt(), str), "the prompt is token ids")

    def parse_prompt(self) -> str | list[int]:
        """Return the one prompt, as text or token ids.

        Raises:
            ApiError: it is empty, several, or neither text nor token ids.
        """
        prompt = self.prompt
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            prompt = prompt[0]
        if isinstance(prompt, list) and any(isinstance(one, str | list) for one in prompt):
            raise ApiError("This server takes one prompt per request", status=400, param="prompt")
        if not prompt:
            raise ApiError("The prompt is empty", status=400, param="prompt")
        if isinstance(prompt, str):
            return prompt
        try:
            return msgspec.convert(prompt, list[TokenId])
        except msgspec.ValidationError as error:
            raise ApiError(f"The prompt is not a list of token ids: {error}", status=400, param="prompt") from error


class ContentPart(Struct, frozen=True):
    """A part of a message; only those of type text are understood."""

    type: str
    text: str = ""


class ChatMessage(Struct, frozen=True):
    """One message of a conversation; `content` is null where an assistant only called tools."""

    role: str
    content: str | list[ContentPart] | None = None

    def parse_text(self) -> str:
        """Return the text of all parts. Raises ApiError for a part that is none."""
        if not isinstance(self.content, list):
            return self.content or ""
        for part in self.content:
            if part.type != "text":
                raise ApiError(f"Content of type {part.type[:100]!r} is not text", status=400, param="messages")
        return "".join(part.text for part in self.content)


class ResponseFormat(Struct, frozen=True):
    """What form an answer is to have."""

    type: str


class ChatBody(_Body, frozen=True, kw_only=True):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: _MaxTokens = None
    logprobs: bool | None = None
    tools: list[Any] | None = None
    response_format: ResponseFormat | None = None

    def refuse_what_cannot_be_done(self) -> None:
        """Raise ApiError for what would change the answer, and is not there."""
        super().refuse_what_cannot_be_done()
        self._refuse("logprobs", bool(self.logprobs), "this server does not tell how likely tokens were")
        self._refuse("tools", bool(self.tools), "this server does not let models call tools")
        form = self.response_format.type if self.response_format else "text"
        self._refuse("response_format", form != "text", "this server gives text only")

    @property
    def token_limit(self) -> int | None:
        """The limit under its new name, or else under its old one."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def parse_conversation(self) -> list[tuple[str, str]]:
        """Return role and text of each message. Raises ApiError for a part that is no text."""
        return [(message.role, message.parse_text()) for message in self.messages]
