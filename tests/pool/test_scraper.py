"""Where the scraper looks for an endpoint's metrics."""

from tidegate.pool.endpoint import Endpoint
from tidegate.pool.scraper import exposition_urls


def at(address: str, **fields: object) -> Endpoint:
    """Return an endpoint there."""
    host, _, port = address.rpartition(":")
    return Endpoint(name=address, host=host, port=int(port), address=address, **fields)  # type: ignore[arg-type]


def sought(*endpoints: Endpoint) -> list[list[str]]:
    """Return the URLs tried for each."""
    return [[str(url).removeprefix("http://") for url in urls] for urls in exposition_urls(endpoints).values()]


def test_the_only_endpoint_of_a_host_may_have_them_on_tritons_metrics_port() -> None:
    assert sought(at("10.0.0.1:8000"), at("10.0.0.2:8000")) == [
        ["10.0.0.1:8000/metrics", "10.0.0.1:8000/prometheus/metrics", "10.0.0.1:8002/metrics"],
        ["10.0.0.2:8000/metrics", "10.0.0.2:8000/prometheus/metrics", "10.0.0.2:8002/metrics"],
    ]


def test_no_endpoint_is_given_the_figures_of_a_neighbour_on_its_host() -> None:
    assert sought(at("10.0.0.1:8000"), at("10.0.0.1:8010")) == [
        ["10.0.0.1:8000/metrics", "10.0.0.1:8000/prometheus/metrics"],
        ["10.0.0.1:8010/metrics", "10.0.0.1:8010/prometheus/metrics"],
    ]


def test_a_named_place_is_the_only_one_and_leaves_the_others_to_be_found() -> None:
    named = at("10.0.0.1:8010", metrics_port=8012, metrics_path="/m")
    assert sought(at("10.0.0.1:8000"), named) == [
        ["10.0.0.1:8000/metrics", "10.0.0.1:8000/prometheus/metrics", "10.0.0.1:8002/metrics"],
        ["10.0.0.1:8012/m"],
    ]
    elsewhere = at("10.0.0.1:8010", metrics_host="10.0.0.9", metrics_path="/")
    assert sought(elsewhere) == [["10.0.0.9:8010/"]]
