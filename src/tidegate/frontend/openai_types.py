"""The bodies of OpenAI's Completions and Chat Completions, as far as a text model can obey them.

Fields that change nothing here (temperature, top_p) are checked all the same: a client that sends nonsense should learn
it from the simulated server and not from the real one.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from tidegate.frontend.errors import ApiError

TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
_MaxTokens = Annotated[int, Meta(ge=1, lt=2**31)] | None


class StreamOptions(Struct, frozen=True):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None


class _Sampling(Struct, frozen=True, kw_only=True):
    """What both kinds of bodies have."""

    model: str
    max_tokens: _MaxTokens = None
    n: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    stop: str | list[str] | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionBody(_Sampling, frozen=True, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[Any]

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


class ChatBody(_Sampling, frozen=True, kw_only=True):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: _MaxTokens = None

    @property
    def token_limit(self) -> int | None:
        """The limit under its new name, or else under its old one."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def parse_prompt(self) -> str:
        """Return the conversation as text, each message behind its role.

        A conversation that goes on begins with the text it had before: its prefix is found in the KV cache.
        """
        turns = [f"{message.role}: {message.parse_text()}\n" for message in self.messages]
        return "".join(turns) + "assistant:"
