"""URLs as operators write them."""

import pytest

from tidegate.protocol.errors import ConfigError
from tidegate.scrape.http import HttpUrl, parse_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://10.0.0.5:8000", HttpUrl("10.0.0.5", 8000, "/")),
        ("http://gpu-1.example:8000/metrics", HttpUrl("gpu-1.example", 8000, "/metrics")),
        ("HTTP://GPU_1/prometheus/metrics?name[]=a&b", HttpUrl("gpu_1", 80, "/prometheus/metrics?name[]=a&b")),
        ("http://[::1]:8002/metrics", HttpUrl("::1", 8002, "/metrics")),
        ("http://localhost?q", HttpUrl("localhost", 80, "/?q")),
    ],
)
def test_host_port_and_path_are_read(text: str, url: HttpUrl) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize("text", ["http://10.0.0.5:8000/metrics", "http://[::1]:8002/"])
def test_a_url_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_url(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.5:8000",
        "localhost:8000",
        "http:/localhost",
        "http:localhost",
        "ftp://host/",
        "http://",
        "http://:8000",
        "http://host:0",
        "http://host:65536",
        "http://host:x",
        "http://::1:8000",
        "http://[10.0.0.5]:80",
        "http://[::1",
        "http://[x]/",
        "http://user@host/",
        "http://host/#part",
        "http://host/a b",
        "http://host/a\r\nx: y",
        "http://höst/",
        "http://-host/",
        "http://ho$t/",
    ],
)
def test_a_bad_url_is_an_error_that_shows_it_and_the_way_out(text: str) -> None:
    with pytest.raises(ConfigError, match="bad URL") as caught:
        parse_url(text)
    assert repr(text) in str(caught.value)
    assert "http://host:port/path" in str(caught.value)


def test_tls_is_named_as_not_supported_yet() -> None:
    with pytest.raises(ConfigError, match="https is not supported yet"):
        parse_url("https://host:8000/metrics")


@pytest.mark.parametrize("path", ["", "metrics", "/a b", "/a\r\nx: y", "/ü"])
def test_a_path_can_never_write_headers_of_its_own(path: str) -> None:
    with pytest.raises(ConfigError, match="malformed path"):
        HttpUrl("host", 80, path)
