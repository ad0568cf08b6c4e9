"""Files that commands write: whether they can be is found out before the work, not after it."""

import os
from pathlib import Path

from tidegate.protocol.errors import ConfigError


def check_writable(file: Path, *, key: str) -> None:
    """Raise ConfigError, naming the option `key`, where no such file can be written."""
    if file.is_dir():
        raise _cannot_write(file, "it is a directory", key)
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise _cannot_write(
            file, "it may not be written" if file.parent.is_dir() else f"there is no directory {file.parent}", key
        )


def check_replaceable(file: Path, *, key: str) -> None:
    """As `check_writable`, for a file that is renamed into its place. It is not touched: others may be following it."""
    if file.is_dir():
        raise _cannot_write(file, "it is a directory", key)
    if not file.parent.is_dir():
        raise _cannot_write(file, f"there is no directory {file.parent}", key)
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise _cannot_write(file, f"{file.parent} is not writable", key)


def write_file(file: Path, content: bytes, *, key: str) -> None:
    """Write a file; one that is there is replaced. Raises ConfigError."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise _cannot_write(file, error.strerror or str(error), key) from error


def make_directory(directory: Path, *, key: str) -> None:
    """Make a directory to write into, where it is not there yet. Raises ConfigError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(directory, error.strerror or str(error), key) from error
    if not os.access(directory, os.W_OK):
        raise _cannot_write(directory, "it may not be written to", key)


def _cannot_write(file: Path, problem: str, key: str) -> ConfigError:
    return ConfigError(f"cannot write {file}: {problem}", fix="Give another path.", key=key)
