"""The first door to the decision: our own Envoy asks with one unary ext_authz Check a request.

Request path: Check → InferenceRequest → Director → **dynamic metadata** that Envoy's override_host reads
"""

from collections.abc import Callable

import grpc
from envoy.service.auth.v3 import external_auth_pb2 as auth
from google.protobuf import struct_pb2

from tidegate.gateway.body_length import body_length
from tidegate.gateway.names import DECISION_ID, DESTINATION
from tidegate.gateway.origin import origin_of
from tidegate.picker.director import Director
from tidegate.picker.request import InferenceRequest

SERVICE = "envoy.service.auth.v3.Authorization"


class AuthorizationService:
    """Answers every Check with OK; the pick travels in the metadata, so that no header reaches the model server.

    Without an eligible endpoint the metadata is empty and Envoy falls back to least request: traffic keeps flowing.
    """

    def __init__(self, director: Director, clock: Callable[[], float]) -> None:
        self._director = director
        self._clock = clock

    def handler(self) -> "grpc.GenericRpcHandler[auth.CheckRequest, auth.CheckResponse]":
        """Return what a gRPC server needs to serve this."""
        check = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=auth.CheckRequest.FromString,
            response_serializer=auth.CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": check})

    async def check(self, request: auth.CheckRequest, context: object) -> auth.CheckResponse:
        """Decide one request."""
        decision = self._director.decide(parse_check(request), self._clock())
        if decision is None:
            return auth.CheckResponse(ok_response=auth.OkHttpResponse())
        return auth.CheckResponse(
            ok_response=auth.OkHttpResponse(),
            dynamic_metadata=struct_pb2.Struct(
                fields={
                    DESTINATION: struct_pb2.Value(string_value=",".join(decision.destinations)),
                    DECISION_ID: struct_pb2.Value(string_value=decision.id),
                }
            ),
        )


def parse_check(request: auth.CheckRequest) -> InferenceRequest:
    """Return the request that Envoy asks about.

    The declared length counts, because the body may be cut and Envoy's own `size` then says so wrongly.
    """
    attributes = request.attributes
    http = attributes.request.http
    return InferenceRequest(
        path=http.path.partition("?")[0],
        body_bytes=body_length(http.headers.get("content-length", ""), seen=len(http.raw_body)),
        origin=origin_of(attributes.source.address, attributes.request.time),
    )
