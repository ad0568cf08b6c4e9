"""A model's own chat template, in Jinja, as Hugging Face's tokenizer_config.json has it.

Flow: file → **JinjaChatTemplate**; messages → prompt. Needs jinja2, of the extra `triton`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import msgspec
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tidegate.frontend.errors import ApiError
from tidegate.protocol.errors import ConfigError

MAX_FILE_BYTES = 2**24
_FIX = "Give the model's tokenizer_config.json, or a file that holds the template alone."


class _RefusedError(jinja2.TemplateError):
    """What a template says by raise_exception."""


class JinjaChatTemplate:
    """Renders in a sandbox, without access to anything of this process."""

    def __init__(self, source: str, *, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens`: such as `bos_token`, which templates write before all. Raises jinja2.TemplateError."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
        environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
        self._template = environment.from_string(source)
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """Return the prompt. Raises ApiError where the template refuses, or fails on, the conversation."""
        conversation = [{"role": role, "content": text} for role, text in messages]
        try:
            return self._template.render(messages=conversation, add_generation_prompt=True, **self._special_tokens)
        except _RefusedError as error:
            raise ApiError(f"The model's chat template says: {error}", status=400, param="messages") from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            message = f"The model's chat template fails on this conversation: {type(error).__name__}: {error}"
            raise ApiError(message, status=400, param="messages") from error


def read_chat_template(path: Path) -> JinjaChatTemplate:
    """Read a template: from a tokenizer_config.json, or a file that holds nothing else.

    Raises:
        ConfigError: there is none in it, or it is no template.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes", where=str(path), fix=_FIX)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), fix=_FIX) from error
    source, special_tokens = (_from_config(text, path)) if path.suffix == ".json" else (text, {})
    try:
        return JinjaChatTemplate(source, special_tokens=special_tokens)
    except jinja2.TemplateError as error:
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise ConfigError(f"no chat template{line}: {error}", where=str(path), fix=_FIX) from error


def _from_config(text: str, path: Path) -> tuple[str, dict[str, str]]:
    try:
        config = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"no JSON object: {error}", where=str(path), fix=_FIX) from error
    source = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        raise ConfigError("there is no chat template", where=str(path), key="chat_template", fix=_FIX)
    tokens = {name: _token(value) for name, value in config.items() if name.endswith("_token")}
    return source, {name: token for name, token in tokens.items() if token is not None}


def _token(value: object) -> str | None:
    """Return a special token, written as text or as an object that has it as its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _raise(message: str) -> NoReturn:
    raise _RefusedError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
