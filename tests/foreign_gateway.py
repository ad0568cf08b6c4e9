"""A gateway that is not ours: a real Envoy that asks by ext_proc, configured as other projects configure theirs."""

import contextlib
import functools
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal

import aiohttp

from processes import free_port, listens, until
from tidegate.gateway.envoy.binary import find_envoy
from tidegate.gateway.process import Program, running

EXTENSIONS = "type.googleapis.com/envoy.extensions"
PICK = "x-gateway-destination-endpoint"


Mode = Literal["FULL_DUPLEX_STREAMED", "BUFFERED", "NONE"]
"""How request bodies are shown to the picker."""


class ForeignGateway:
    """A running one."""

    def __init__(self, port: int, admin_socket: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._admin_socket = admin_socket

    async def ext_proc_counts(self) -> dict[str, int]:
        """Return what Envoy counts of its questions."""
        connector = aiohttp.UnixConnector(str(self._admin_socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://envoy/stats?filter=ext_proc") as answer,
        ):
            lines = (line.split(": ") for line in (await answer.text()).splitlines())
            return {name.rpartition(".")[2]: int(value) for name, value in lines if value.isdecimal()}


@contextlib.asynccontextmanager
async def foreign_gateway(
    directory: Path, picker: str, *, mode: Mode, cluster: dict[str, Any], subset: Sequence[str] | None = None
) -> AsyncIterator[ForeignGateway]:
    """Run it in front of the picker at `host:port`. `subset`: the endpoints it allows."""
    port = free_port()
    admin_socket = directory / "envoy.sock"
    config = directory / "envoy.json"
    admin = {"admin": {"address": {"pipe": {"path": str(admin_socket)}}}}
    config.write_text(json.dumps(admin | _bootstrap(port, picker, mode, cluster, subset)))
    argv = [str(find_envoy()), "--config-path", str(config), "--disable-hot-restart", "--log-level", "warning"]
    async with running(Program("envoy", argv, directory / "envoy.log")):
        await until(functools.partial(listens, port))
        yield ForeignGateway(port, admin_socket)


def original_dst() -> dict[str, Any]:
    """A cluster that goes where the header says, as llm-d's standalone chart has it."""
    return {
        "name": "servers",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "1s",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": PICK},
    }


def override_host(addresses: Sequence[str]) -> dict[str, Any]:
    """A cluster that knows its endpoints and goes where the metadata says."""
    policies = f"{EXTENSIONS}.load_balancing_policies"
    round_robin = {
        "policies": [
            {
                "typed_extension_config": {
                    "name": "envoy.load_balancing_policies.round_robin",
                    "typed_config": {"@type": f"{policies}.round_robin.v3.RoundRobin"},
                }
            }
        ]
    }
    override = {
        "@type": f"{policies}.override_host.v3.OverrideHost",
        "override_host_sources": [{"metadata": {"key": "envoy.lb", "path": [{"key": PICK}]}}],
        "fallback_policy": round_robin,
    }
    return {
        "name": "servers",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "servers",
            "endpoints": [{"lb_endpoints": [_lb_endpoint(address) for address in addresses]}],
        },
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.override_host",
                        "typed_config": override,
                    }
                }
            ]
        },
    }


def _lb_endpoint(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


def _bootstrap(
    port: int, picker: str, mode: str, cluster: dict[str, Any], subset: Sequence[str] | None
) -> dict[str, Any]:
    manager = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "foreign",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "servers"}}],
                }
            ]
        },
        "http_filters": [
            *([] if subset is None else [_set_subset(subset)]),
            _ext_proc(mode),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
            },
        ],
    }
    hcm = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "node": {"id": "foreign", "cluster": "foreign"},
        "static_resources": {
            "listeners": [
                {
                    "name": "foreign",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [{"filters": [hcm]}],
                }
            ],
            "clusters": [cluster, _picker_cluster(picker)],
        },
    }


def _ext_proc(mode: str) -> dict[str, Any]:
    whole = mode == "FULL_DUPLEX_STREAMED"
    return {
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}, "timeout": "10s"},
            "message_timeout": "10s",
            "failure_mode_allow": False,
            "processing_mode": {
                "request_header_mode": "SEND",
                "request_body_mode": mode,
                "request_trailer_mode": "SEND" if whole else "SKIP",
                "response_header_mode": "SEND" if whole else "SKIP",
                "response_body_mode": mode if whole else "NONE",
                "response_trailer_mode": "SEND" if whole else "SKIP",
            },
            "metadata_options": {
                "forwarding_namespaces": {"untyped": ["envoy.lb.subset_hint"]},
                "receiving_namespaces": {"untyped": ["envoy.lb"]},
            },
            "mutation_rules": {"allow_all_routing": True},
        },
    }


def _set_subset(addresses: Sequence[str]) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.set_metadata",
        "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.set_metadata.v3.Config",
            "metadata": [
                {
                    "metadata_namespace": "envoy.lb.subset_hint",
                    "value": {"x-gateway-destination-endpoint-subset": list(addresses)},
                }
            ],
        },
    }


def _picker_cluster(picker: str) -> dict[str, Any]:
    return {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": "picker", "endpoints": [{"lb_endpoints": [_lb_endpoint(picker)]}]},
    }
