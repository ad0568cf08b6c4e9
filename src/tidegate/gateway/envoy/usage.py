"""Token usage, read by Envoy itself from the answers that pass through it, for its access log.

Outcomes path: OpenAI's `usage` in an answer → **dynamic metadata** → custom tags of the log entry → TokenUsage
"""

from tidegate.gateway.envoy.files import JsonObject
from tidegate.gateway.names import USAGE_TAGS

NAMESPACE = "tidegate.usage"
GENERATING_PATHS = r"(/.*)?/v1/(chat/)?completions"
"""The requests whose plain answers are read; of all others only streams are."""
PLAIN_FILTER = "envoy.filters.http.json_to_metadata"
MAX_EVENT_BYTES = 65_536
"""Longer events of a stream are passed over; the one with the usage is short."""
JSON_TYPES = ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")
"""Envoy compares them letter by letter."""

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_PATHS = {
    "prompt_tokens": ("usage", "prompt_tokens"),
    "completion_tokens": ("usage", "completion_tokens"),
    "cached_tokens": ("usage", "prompt_tokens_details", "cached_tokens"),
}


def usage_filters() -> list[JsonObject]:
    """Return the filters that read usage from streams, and from plain answers, which they hold until they are whole."""
    rules = [_rule(tag) for tag in USAGE_TAGS]
    parser = {
        "@type": "type.googleapis.com/envoy.extensions.content_parsers.json.v3.JsonContentParser",
        "rules": [{"rule": rule} for rule in rules],
    }
    streams = {
        "@type": f"{_FILTERS}.sse_to_metadata.v3.SseToMetadata",
        "response_rules": {
            "content_parser": {"name": "envoy.content_parsers.json", "typed_config": parser},
            "max_event_size": MAX_EVENT_BYTES,
        },
    }
    plain = {
        "@type": f"{_FILTERS}.json_to_metadata.v3.JsonToMetadata",
        "response_rules": {"rules": rules, "allow_content_types": list(JSON_TYPES)},
    }
    return [
        {"name": "envoy.filters.http.sse_to_metadata", "typed_config": streams},
        {"name": PLAIN_FILTER, "typed_config": plain},
    ]


def without_plain_filter() -> JsonObject:
    """Return the configuration of a route whose plain answers are not held.

    Envoy answers 500 in the place of what it cannot hold, and embeddings may be larger than that.
    """
    disabled = {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "is_optional": True,
        "disabled": True,
    }
    return {"typed_per_filter_config": {PLAIN_FILTER: disabled}}


def usage_tags() -> list[JsonObject]:
    """Return the custom tags that carry what the filters read."""
    return [{"tag": tag, "value": f"%DYNAMIC_METADATA({NAMESPACE}:{tag})%"} for tag in USAGE_TAGS]


def _rule(tag: str) -> JsonObject:
    return {
        "selectors": [{"key": key} for key in _PATHS[tag]],
        "on_present": {"metadata_namespace": NAMESPACE, "key": tag, "type": "NUMBER"},
    }
