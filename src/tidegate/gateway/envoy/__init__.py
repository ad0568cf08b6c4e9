"""Our own Envoy: its binary, its configuration, its endpoint file. Its spellings stay in the gateway package."""
