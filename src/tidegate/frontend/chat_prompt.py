"""How a conversation becomes one prompt, where the model's own way is not known.

Flow: messages → **ChatTemplate** → prompt.
"""

from collections.abc import Sequence
from typing import Protocol


class ChatTemplate(Protocol):
    """Makes one prompt of a conversation. Called on the event loop: no waiting."""

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """Return the prompt whose continuation is the assistant's answer.

        Args:
            messages: role and text of each, at least one.

        Raises:
            ApiError: the template does not take such a conversation.
        """


class RolePrefixes:
    """Each message behind its role.

    A conversation that goes on begins with the text it had before: its prefix is found in the KV cache.
    """

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """Return `role: text` for each message, and `assistant:` for the answer."""
        return "".join(f"{role}: {text}\n" for role, text in messages) + "assistant:"
