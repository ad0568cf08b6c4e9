"""The endpoint file and the endpoint arguments: what is accepted, and what is said of the rest."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.pool.endpoint import Endpoint
from tidegate.pool.endpoints_file import MAX_FILE_BYTES, parse_argument, parse_endpoints, unique
from tidegate.protocol.errors import ConfigError

SCALARS = st.one_of(
    st.text(),
    st.integers().map(str),
    st.sampled_from(
        ["null", "yes", "~", ".inf", "1e999", "0x1", "2001-99-99", "!!int ''", "!!timestamp x", "*a", "&a"]
    ),
)
ENTRIES = st.dictionaries(
    st.sampled_from(["name", "address", "port", "namespace", "labels", "metricsPort", "metricsPath", "other"]), SCALARS
)


def parse(text: str) -> list[Endpoint]:
    return parse_endpoints(text.encode(), where="pool.yaml")


def entry(fields: str) -> Endpoint:
    [parsed] = parse(f"endpoints: [{{{fields}}}]")
    return parsed


def refuse(text: str, *, saying: str) -> None:
    """Check that the text is refused by an error that names the file and says this."""
    with pytest.raises(ConfigError, match=f"(?s)^pool.yaml: .*{saying}"):
        parse(text)


def refuse_entry(fields: str, *, saying: str) -> None:
    refuse(
        f"endpoints: [{{name: good, address: 10.0.0.1, port: 80}}, {{{fields}}}]",
        saying=rf"endpoints\[1\].*{saying}",
    )


class TestFile:
    def test_every_key_of_an_entry_is_read(self) -> None:
        parsed = entry(
            "name: a, namespace: ns, address: gpu-1, port: 8000, metricsPort: 8002, metricsPath: '/m?x=1', "
            "labels: {llm-d.ai/engine-type: triton-tensorrt-llm, rank: 1}"
        )

        assert parsed == Endpoint(
            name="ns/a",
            host="gpu-1",
            port=8000,
            metrics_port=8002,
            metrics_path="/m?x=1",
            engine="triton-tensorrt-llm",
            labels={"llm-d.ai/engine-type": "triton-tensorrt-llm", "rank": "1"},
        )

    @pytest.mark.parametrize("port", ["8000", "'8000'"])
    def test_a_port_may_be_a_number_or_a_string(self, port: str) -> None:
        assert entry(f"name: a, address: b, port: {port}").port == 8000

    @pytest.mark.parametrize("port", ["0", "65536", "-1", "true", "''", "8000tcp", "[8000]", "0x1F40", "80.5", "8 0"])
    def test_what_is_no_port_is_refused(self, port: str) -> None:
        refuse_entry(f"name: a, address: b, port: {port}", saying="port")
        refuse_entry(f"name: a, address: b, port: 80, metricsPort: {port}", saying="metricsPort")

    @pytest.mark.parametrize("name", ["no", "1", "1.0", "null", "2001-01-01"])
    def test_a_name_is_text_whatever_yaml_would_make_of_it(self, name: str) -> None:
        assert entry(f"name: {name}, address: b, port: 80").name == name

    @pytest.mark.parametrize(
        ("written", "host"), [("10.0.0.5", "10.0.0.5"), ("'fd00::1'", "fd00::1"), ("'[fd00::1]'", "fd00::1")]
    )
    def test_an_address_is_a_name_or_an_ip(self, written: str, host: str) -> None:
        assert entry(f"name: a, address: {written}, port: 80").host == host

    @pytest.mark.parametrize(
        "address", ["''", "'[]'", "'http://b'", "'b:80'", "b/c", "user@b", "'b c'", "'b?c'", "'b#c'", '"b\\0"', "':'"]
    )
    def test_what_is_no_address_is_refused(self, address: str) -> None:
        refuse_entry(f"name: a, address: {address}, port: 80", saying="address")

    @pytest.mark.parametrize("path", ["metrics", "'/a b'", '"/a\\r\\nHost: x"', "/ä"])
    def test_a_path_that_could_not_be_asked_for_is_refused(self, path: str) -> None:
        refuse_entry(f"name: a, address: b, port: 80, metricsPath: {path}", saying="metricsPath")

    @pytest.mark.parametrize("fields", ["address: b, port: 80", "name: a, port: 80", "name: a, address: b", "'': x"])
    def test_name_address_and_port_are_required(self, fields: str) -> None:
        refuse_entry(fields, saying="required|unknown field")

    def test_a_misspelt_key_is_named(self) -> None:
        refuse_entry("name: a, address: b, port: 80, metricPort: 1", saying="metricPort")
        refuse("endpoints: []\nendpoint: []", saying="endpoint: unknown key")

    def test_an_unknown_engine_is_answered_with_those_there_are(self) -> None:
        refuse_entry("name: a, address: b, port: 80, labels: {llm-d.ai/engine-type: vlm}", saying="labels: .*vllm")

    @pytest.mark.parametrize("text", ["", "a", "[]", "endpoints:", "endpoints: {}", "endpoints: a", "servers: []"])
    def test_a_document_of_another_form_is_refused(self, text: str) -> None:
        refuse(text, saying="endpoints: must be a list")

    def test_an_empty_list_is_an_empty_pool(self) -> None:
        assert parse("endpoints: []") == []

    @pytest.mark.parametrize("text", ["endpoints: []\nendpoints: []", "endpoints: [{name: a, name: b}]"])
    def test_a_key_given_twice_is_refused_instead_of_losing_the_first(self, text: str) -> None:
        refuse(text, saying="twice")

    @pytest.mark.parametrize(
        "second",
        ["name: a, address: other, port: 80", "name: b, address: gpu-1, port: 80"],
    )
    def test_two_entries_of_one_name_or_one_place_are_refused(self, second: str) -> None:
        refuse(f"endpoints: [{{name: a, address: gpu-1, port: 80}}, {{{second}}}]", saying="listed twice")

    def test_two_ports_of_one_host_are_two_endpoints(self) -> None:
        assert len(parse("endpoints: [{name: a, address: h, port: 1}, {name: b, address: h, port: 2}]")) == 2


class TestHostileFile:
    def test_an_alias_bomb_is_refused_before_it_expands(self) -> None:
        bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))

        refuse(bomb, saying="aliases")

    @pytest.mark.parametrize("nest", ["[", "{a: ", "- "])
    def test_deep_nesting_is_refused(self, nest: str) -> None:
        refuse(nest * 20_000, saying="not YAML")

    def test_a_larger_file_than_the_limit_is_refused(self) -> None:
        refuse("#" * (MAX_FILE_BYTES + 1), saying=f"larger than {MAX_FILE_BYTES} bytes")

    def test_a_file_just_within_the_limit_is_read(self) -> None:
        text = "endpoints: []\n"

        assert parse(text + "#" * (MAX_FILE_BYTES - len(text))) == []

    @pytest.mark.parametrize(
        "value",
        ["!!int ''", "!!float ''", "!!bool foo", "!!timestamp x", "!!python/object:os.system x", "1:" * 99 + "1"],
    )
    def test_tags_make_nothing_of_a_value(self, value: str) -> None:
        refuse_entry(f"name: a, address: b, port: {value}", saying="port")

    @given(st.binary())
    def test_any_bytes_parse_or_raise_a_config_error(self, content: bytes) -> None:
        parse_or_refuse(content)

    @given(st.lists(ENTRIES, max_size=3))
    def test_any_entries_parse_or_raise_a_config_error(self, entries: list[dict[str, str]]) -> None:
        lines = [", ".join(f"{key}: {value}" for key, value in fields.items()) for fields in entries]
        parse_or_refuse(("endpoints: [" + ", ".join(f"{{{line}}}" for line in lines) + "]").encode(errors="replace"))


def parse_or_refuse(content: bytes) -> None:
    try:
        parsed = parse_endpoints(content, where="pool.yaml")
    except ConfigError as error:
        message = str(error)
        assert message.startswith("pool.yaml: ")
        assert "\n" not in message
    else:
        assert all(endpoint.host and 0 < endpoint.port < 65536 for endpoint in parsed)


class TestArgument:
    @pytest.mark.parametrize(
        ("argument", "name"),
        [
            ("http://gpu-1:8000", "gpu-1:8000"),
            ("http://gpu-1:8000/", "gpu-1:8000"),
            ("http://gpu-1", "gpu-1:80"),
            ("http://[fd00::1]:8000", "[fd00::1]:8000"),
        ],
    )
    def test_a_url_is_an_endpoint_named_after_its_place(self, argument: str, name: str) -> None:
        parsed = parse_argument(argument)

        assert parsed.name == name
        assert (parsed.metrics_host, parsed.metrics_port, parsed.metrics_path) == (None, None, None)

    def test_the_metrics_may_be_elsewhere(self) -> None:
        parsed = parse_argument("http://triton:8000,metrics=http://other:8002/m")

        assert (parsed.host, parsed.port) == ("triton", 8000)
        assert (parsed.metrics_host, parsed.metrics_port, parsed.metrics_path) == ("other", 8002, "/m")

    @pytest.mark.parametrize(
        ("argument", "saying"),
        [
            ("gpu-1:8000", "gpu-1:8000"),
            ("https://gpu-1", "https"),
            ("http://gpu-1/v1", "Give the server alone: http://gpu-1:80"),
            ("http://gpu-1?q=1", "'http://gpu-1?q=1' has a query. Give the server alone: http://gpu-1:80"),
            ("http://[fd00::1]/v1", "'http://[fd00::1]/v1' has a path. Give the server alone: http://[fd00::1]:80"),
            ("http://gpu-1,metrics=foo", "'http://gpu-1,metrics=foo': bad URL 'foo': it does not begin with http://"),
            ("http://gpu-1,metric=http://x", "unknown option 'metric'"),
            ("http://gpu-1,metrics=", "bad URL ''"),
            ("http://gpu-1,", "unknown option ''"),
            ("", "bad URL ''"),
        ],
    )
    def test_what_is_wrong_is_said(self, argument: str, saying: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(saying)):
            parse_argument(argument)

    @given(st.text())
    def test_any_text_parses_or_raises_a_config_error(self, argument: str) -> None:
        with contextlib.suppress(ConfigError):
            parse_argument(f"http://{argument}")

    def test_the_same_url_twice_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"command line: endpoint 'a:80' .* is listed twice"):
            unique([parse_argument("http://a"), parse_argument("http://a:80/")], where="command line")
