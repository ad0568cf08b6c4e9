"""Which Envoy runs."""

from pathlib import Path

import pytest

from tidegate.gateway.envoy.binary import find_envoy
from tidegate.protocol.errors import ConfigError


def test_a_file_of_the_current_directory_is_never_looked_for_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "envoy").write_text("#!/bin/sh\n")
    (tmp_path / "envoy").chmod(0o755)
    monkeypatch.chdir(tmp_path)

    assert find_envoy(Path("./envoy")) == tmp_path / "envoy"


def test_what_a_binary_complains_of_is_told(tmp_path: Path) -> None:
    old = tmp_path / "envoy"
    old.write_text("#!/bin/sh\necho 'GLIBC_2.99 not found' >&2; exit 1\n")
    old.chmod(0o755)

    with pytest.raises(ConfigError, match=r"does not tell its --version: GLIBC_2\.99 not found"):
        find_envoy(old)
