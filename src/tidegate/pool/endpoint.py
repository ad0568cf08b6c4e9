"""One model server, as discovery names it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where one model server answers, and where it says how busy it is. A change of any field makes a new endpoint."""

    name: str
    """What people call it; unique in the pool."""
    host: str
    """Host name or IP address, as configured; IPv6 without brackets."""
    port: int
    """Port of the inference API."""
    address: str = ""
    """`ip:port` (`[ip]:port` for IPv6) as the gateway knows it; unique. Empty until the host is resolved."""
    metrics_port: int | None = None
    """Port of the exposition; None: not said, so it is looked for."""
    metrics_path: str | None = None
    """Path of the exposition; None: not said, so it is looked for."""
    metrics_host: str | None = None
    """Host of the exposition; None: the same host."""
    engine: str | None = None
    """Name of the engine mapping; None: detected from the exposition."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the operator wrote beside it."""
