"""Rules on the API that every server must have: OpenAI's completions and chat completions."""

import json
from dataclasses import dataclass

from tidegate.protocol.conformance.finding import Finding, Level, Rule

COMPLETIONS = Rule("api-completions", Level.ERROR, "A request for a completion of one token is not answered.")
CHAT = Rule("api-chat-completions", Level.ERROR, "A request for a chat completion of one token is not answered.")
ANSWERS = Rule("api-answers", Level.INFO, "The API answers, and how fast.")
RULES = (COMPLETIONS, CHAT, ANSWERS)

URL_OF_REQUESTS = "name the URL of requests, too: URL,metrics=URL."
"""What helps where requests went to a port of metrics."""

_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAnswer:
    """What one POST gave."""

    path: str
    status: int | None
    """None: no answer."""
    body: bytes
    """Its beginning is enough where it is long."""
    problem: str
    """Why there is no answer; empty: there is one."""
    took_s: float


def judge(answer: ApiAnswer) -> Finding:
    """Return how a request for one token went."""
    rule = CHAT if "chat" in answer.path else COMPLETIONS
    problem = answer.problem or _problem(answer)
    if problem:
        return rule.finding(f"POST {answer.path}: {problem}", _way_out(answer.status))
    return ANSWERS.finding(f"POST {answer.path}: one token in {answer.took_s * 1000:.0f} ms")


def _problem(answer: ApiAnswer) -> str:
    if answer.status != 200:
        return f"status {answer.status}{_excerpt(answer.body)}"
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return f"the answer is no JSON{_excerpt(answer.body)}"
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return f"the answer has no choices{_excerpt(answer.body)}"
    wanted = "message" if "chat" in answer.path else "text"
    return "" if wanted in choices[0] else f"its choice has no {wanted}{_excerpt(answer.body)}"


def _excerpt(body: bytes) -> str:
    text = " ".join(body[:_SHOWN].decode(errors="replace").split())
    return f": {text}" if text else ""


def _way_out(status: int | None) -> str:
    match status:
        case 404 | 405 | 501:
            return (
                "Serve OpenAI's API: Triton needs its OpenAI frontend, and some models a chat template. If the URL is "
                f"that of metrics only, {URL_OF_REQUESTS}"
            )
        case None:
            return f"If the URL is that of metrics only, {URL_OF_REQUESTS}"
        case _:
            return "See the server's log: the request named a model that the server itself lists."
