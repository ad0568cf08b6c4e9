"""A model's chat template, from the files in which models come."""

import json
from pathlib import Path

import pytest

from tidegate.frontend.chat_template import JinjaChatTemplate, read_chat_template
from tidegate.frontend.errors import ApiError
from tidegate.protocol.errors import ConfigError

CONVERSATION = [("system", "Be brief."), ("user", "When is high tide?")]
# Of the form that ChatML models use.
SOURCE = """\
{{ bos_token }}{% for message in messages %}
    {%- if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}
<|im_start|>{{ message['role'] }}
{{ message.content | trim }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
RENDERED = """\
<s><|im_start|>system
Be brief.<|im_end|>
<|im_start|>user
When is high tide?<|im_end|>
<|im_start|>assistant
"""


@pytest.mark.parametrize("bos", ["<s>", {"content": "<s>", "lstrip": False}])
@pytest.mark.parametrize("several", [False, True])
def test_the_template_of_a_tokenizer_config_is_rendered_with_its_special_tokens(
    tmp_path: Path, bos: object, several: bool
) -> None:
    templates = [{"name": "tools", "template": "no"}, {"name": "default", "template": SOURCE}]
    file = tmp_path / "tokenizer_config.json"
    file.write_text(
        json.dumps({"chat_template": templates if several else SOURCE, "bos_token": bos, "eos_token": None})
    )

    assert read_chat_template(file).render(CONVERSATION) == RENDERED


def test_a_file_may_hold_the_template_alone(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(SOURCE)

    assert read_chat_template(file).render(CONVERSATION) == RENDERED.removeprefix("<s>")


@pytest.mark.parametrize(
    ("conversation", "said"),
    [([("tool", "x")], "The model's chat template says: no tools"), ([("user", "x"), ("tool", "")], "no tools")],
)
def test_what_a_template_refuses_is_the_clients_mistake(conversation: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(ApiError, match=said) as caught:
        JinjaChatTemplate(SOURCE, special_tokens={}).render(conversation)

    assert (caught.value.status, caught.value.param) == (400, "messages")


@pytest.mark.parametrize(
    "source", ["{{ messages[9].role }}", "{{ 1 // 0 }}", "{{ messages.role.x.y }}", "{{ nothing() }}"]
)
def test_a_template_that_fails_is_no_crash(source: str) -> None:
    with pytest.raises(ApiError, match="fails on this conversation"):
        JinjaChatTemplate(source, special_tokens={}).render(CONVERSATION)


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}"])
def test_a_template_reaches_nothing_outside(source: str) -> None:
    with pytest.raises(ApiError, match="fails on this conversation"):
        JinjaChatTemplate(source, special_tokens={}).render(CONVERSATION)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("chat.jinja", "{% if %}", r"chat.jinja: no chat template, line 1: "),
        ("config.json", "{}", r"config.json: chat_template: there is no chat template"),
        ("config.json", "[1]", r"config.json: no JSON object"),
        ("config.json", '{"chat_template": [{"name": "tools"}]}', r"there is no chat template"),
        ("config.json", '{"chat_template": "{% if %}"}', r"no chat template, line 1"),
    ],
)
def test_a_file_that_holds_none_is_named_with_the_way_out(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(content)

    with pytest.raises(ConfigError, match=said) as caught:
        read_chat_template(file)

    assert "tokenizer_config.json" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.json: cannot be read"):
        read_chat_template(tmp_path / "none.json")
