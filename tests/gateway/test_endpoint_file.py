"""The endpoint file that Envoy follows, and what a restarted picker learns from it."""

from pathlib import Path

import pytest

from tidegate.gateway.envoy.endpoints import read_addresses, write_endpoints
from tidegate.pool.endpoint import Endpoint

MEMBERS = [
    Endpoint(name="a", host="gpu-1", port=8000, address="10.0.0.1:8000"),
    Endpoint(name="b", host="gpu-1", port=8001, address="10.0.0.1:8001"),
    Endpoint(name="c", host="gpu-2", port=8000, address="[fd00::1]:8000"),
]


def test_what_was_written_gives_the_addresses_of_the_names(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    write_endpoints(file, MEMBERS)
    assert read_addresses(file) == {"gpu-1": "10.0.0.1", "gpu-2": "fd00::1"}

    write_endpoints(file, [])
    assert read_addresses(file) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"resources": [{"endpoints": 7}]}', '{"resources": [{}]}'])
def test_a_file_of_another_form_gives_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "endpoints.json"
    file.write_text(content)
    assert read_addresses(file) == {}


def test_no_file_gives_none(tmp_path: Path) -> None:
    assert read_addresses(tmp_path / "endpoints.json") == {}
