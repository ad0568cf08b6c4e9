"""Files that Envoy watches: written whole, then renamed into place, so that it never reads half of one."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

JsonObject = dict[str, object]


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace `path` by `content` atomically."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    new.replace(path)


def write_resources(path: Path, resources: Iterable[JsonObject]) -> None:
    """Replace `path` by a discovery response that holds `resources`."""
    write_json(path, {"resources": list(resources)})


def watched(path: Path) -> JsonObject:
    """Return the config source that reads `path` and follows its renames."""
    return {
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
        "resource_api_version": "V3",
    }
