"""The edges of the request and outcome flows: Envoy, its questions, its access log.

Request path:   Envoy's Check → ext_authz → picker.Director → dynamic metadata, which Envoy's override_host follows
Outcomes path:  Envoy's gRPC access log → access_log → pool.Outcomes
Signals path:   endpoints → envoy.endpoints, the file that Envoy watches

`local.LocalGateway` runs an Envoy (configured by `envoy/`) and a picker as processes that are kept running (`process`).
`admin` and `report` tell people how it goes. Envoy's spellings stay in this package.
"""
