"""What `up` and `picker` share: the model servers a user names."""

from collections.abc import Sequence
from pathlib import Path

from tidegate.pool.discovery import EndpointsFile, EndpointSource, StaticEndpoints
from tidegate.pool.endpoints_file import parse_argument, unique
from tidegate.protocol.errors import ConfigError


def endpoint_source(urls: Sequence[str], file: Path | None) -> EndpointSource:
    """Return the source of the endpoints; ConfigError when neither or both are given, or a URL is wrong."""
    if urls and file:
        raise ConfigError("model servers are given twice", fix="Give either URLs or --endpoints FILE.")
    if file:
        return EndpointsFile(file)
    if not urls:
        raise ConfigError(
            "no model server is given", fix="Give URLs, such as http://localhost:8000, or --endpoints FILE."
        )
    return StaticEndpoints(unique((parse_argument(url) for url in urls), where="command line"))
