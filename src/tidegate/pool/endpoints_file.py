"""The endpoint file and the endpoint arguments: what operators write, parsed strictly.

endpoints:
  - name: triton-a          # unique
    address: 10.0.0.5       # host name or IP
    port: 8000
    metricsPort: 8002       # optional; without it /metrics is looked for
    metricsPath: /metrics   # optional
    labels: {llm-d.ai/engine-type: triton-tensorrt-llm}   # optional
"""

from collections.abc import Hashable, Iterable
from typing import Annotated, Any

import msgspec
import yaml

from tidegate.pool.endpoint import Endpoint
from tidegate.protocol.engines import engine_named
from tidegate.protocol.errors import ConfigError
from tidegate.scrape.http import HttpUrl, parse_url

MAX_FILE_BYTES = 2**20
ENGINE_LABELS = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")
"""The label that names an endpoint's engine, newest first."""

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    address: Annotated[str, msgspec.Meta(min_length=1)]
    port: _Port
    namespace: str = ""
    labels: dict[str, str] = {}
    metrics_port: _Port | None = None
    metrics_path: Annotated[str, msgspec.Meta(pattern="^/")] | None = None


class _PlainLoader(yaml.BaseLoader):
    """Reads mappings, lists and text, nothing else: what a scalar means, its field says.

    Refuses aliases, nine lines of which expand to gigabytes, and keys given twice, the second of which would win.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "found a key twice", node.start_mark)
        return mapping


def parse_endpoints(content: bytes, *, where: str) -> list[Endpoint]:
    """Return the endpoints of a file's content; ConfigError names the file and the entry that is wrong."""
    fix = "See `tidegate up --help` for the form of the file."
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes", fix="Split the pool.", where=where)
    try:
        document = yaml.load(content, _PlainLoader)  # noqa: S506 - it constructs nothing but text
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"not YAML: {_one_line(error)}", fix=fix, where=where) from error
    entries = document.get("endpoints") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ConfigError("must be a list", fix=fix, where=where, key="endpoints")
    if unknown := [key for key in document if key != "endpoints"]:
        raise ConfigError("unknown key", fix="The only key is: endpoints.", where=where, key=str(unknown[0]))
    endpoints = [_parse_entry(entry, where=where, key=f"endpoints[{i}]") for i, entry in enumerate(entries)]
    return unique(endpoints, where=where)


def parse_argument(argument: str) -> Endpoint:
    """Return the endpoint of `URL` or `URL,metrics=URL`; ConfigError says what is wrong with it."""
    serving_text, *options = argument.split(",")
    serving = parse_url(serving_text)
    if serving.path != "/":
        surplus = "a query" if serving.path.startswith("/?") else "a path"
        raise ConfigError(f"'{serving_text}' has {surplus}", fix=f"Give the server alone: http://{serving.authority}")
    metrics: HttpUrl | None = None
    for option in options:
        key, _, value = option.partition("=")
        if key != "metrics":
            raise ConfigError(f"'{argument}': unknown option '{key}'", fix="The form is URL or URL,metrics=URL.")
        try:
            metrics = parse_url(value)
        except ConfigError as error:
            raise ConfigError(error.problem, fix=error.fix, key=f"'{argument}'") from error
    return Endpoint(
        name=serving.authority,
        host=serving.host,
        port=serving.port,
        metrics_host=metrics.host if metrics else None,
        metrics_port=metrics.port if metrics else None,
        metrics_path=metrics.path if metrics else None,
    )


def unique(endpoints: Iterable[Endpoint], *, where: str) -> list[Endpoint]:
    """Return the endpoints as a list; ConfigError when two share a name, or a host and port."""
    names: set[str] = set()
    places: set[tuple[str, int]] = set()
    found = list(endpoints)
    for endpoint in found:
        place = (endpoint.host, endpoint.port)
        if endpoint.name in names or place in places:
            raise ConfigError(
                f"endpoint '{endpoint.name}' ({endpoint.host}:{endpoint.port}) is listed twice",
                fix="Each endpoint needs a name and an address of its own.",
                where=where,
            )
        names.add(endpoint.name)
        places.add(place)
    return found


def _parse_entry(entry: object, *, where: str, key: str) -> Endpoint:
    try:
        parsed = msgspec.convert(entry, _Entry, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(
            str(error), fix="See `tidegate up --help` for an entry's keys.", where=where, key=key
        ) from error
    host = parsed.address.removeprefix("[").removesuffix("]")
    _check_place(HttpUrl(host, parsed.port), parsed.metrics_path or "/", where=where, key=key)
    engine = _engine(parsed.labels, where=where, key=key)
    return Endpoint(
        name=f"{parsed.namespace}/{parsed.name}" if parsed.namespace else parsed.name,
        host=host,
        port=parsed.port,
        metrics_port=parsed.metrics_port,
        metrics_path=parsed.metrics_path,
        engine=engine,
        labels=parsed.labels,
    )


def _check_place(serving: HttpUrl, metrics_path: str, *, where: str, key: str) -> None:
    try:
        HttpUrl(serving.host, serving.port, metrics_path)
    except ConfigError as error:
        raise ConfigError(error.problem, fix=error.fix, where=where, key=f"{key}.metricsPath") from error
    try:
        understood = parse_url(str(serving)).host == serving.host.lower()
    except ConfigError:
        understood = False
    if not understood:
        raise ConfigError(
            f"{serving.host[:200]!r} is no host name or IP address",
            fix="The port has a key of its own.",
            where=where,
            key=f"{key}.address",
        )


def _engine(labels: dict[str, str], *, where: str, key: str) -> str | None:
    named = next((labels[label] for label in ENGINE_LABELS if label in labels), None)
    if named is None:
        return None
    try:
        return engine_named(named).name
    except ConfigError as error:
        raise ConfigError(error.problem, fix=error.fix, where=where, key=f"{key}.labels") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
