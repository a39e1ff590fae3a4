"""Server reflection, v1 and v1alpha: clients such as grpcurl list and call the services without the .proto."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, Final

import attrs
import trio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.const import Cardinality, Handler, Status
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2 as v1
from grpclib.reflection.v1alpha import reflection_pb2 as v1alpha

from pool.rpc.calls import Calls, ServerStream, end, receive, send
from vmpool.wire.descriptors import Schemas, own_files

MAX_NAME_BYTES: Final = 1024
"""Of a requested file or symbol. A reply includes the request."""

_VERSIONS: Final[Mapping[str, ModuleType]] = {
    "grpc.reflection.v1.ServerReflection": v1,
    "grpc.reflection.v1alpha.ServerReflection": v1alpha,
}


@attrs.define(eq=False, kw_only=True)
class ReflectionService:
    """Both versions, whose messages differ only in their names."""

    schemas: Schemas
    calls: Calls
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Lets one call go on in each round of the scheduler, as with watchers: short requests have long replies."""

    @classmethod
    def of(cls, services: Iterable[Any], *, calls: Calls) -> ReflectionService:
        """Describes these services, and itself."""
        names = {path.split("/")[1] for service in services for path in service.__mapping__()}
        schemas = Schemas(names | _VERSIONS.keys(), among=(*own_files(), *_libraries_files()))
        return cls(schemas=schemas, calls=calls)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/{service}/ServerReflectionInfo": Handler(
                self.calls.handler(self.info_call),
                Cardinality.STREAM_STREAM,
                version.ServerReflectionRequest,
                version.ServerReflectionResponse,
            )
            for service, version in _VERSIONS.items()
        }

    async def info_call(self, stream: ServerStream) -> None:
        """Answers until the client ends the requests. Waits for the client to read each answer."""
        while (request := await receive(stream)) is not None:
            async with self._turn:
                reply = self._answer(request)
            await send(stream, reply)
        await end(stream)

    def _answer(self, request: Any) -> Any:
        version = v1 if isinstance(request, v1.ServerReflectionRequest) else v1alpha
        if request.ByteSize() > MAX_NAME_BYTES:
            return _refusal(
                version, Status.INVALID_ARGUMENT, f"the request is too long; the maximum is {MAX_NAME_BYTES} bytes"
            )
        reply = self._reply(version, request)
        reply.valid_host = request.host
        reply.original_request.CopyFrom(request)
        return reply

    def _reply(self, version: ModuleType, request: Any) -> Any:
        kind = request.WhichOneof("message_request")
        match kind:
            case "list_services":
                names = [version.ServiceResponse(name=name) for name in self.schemas.services]
                return version.ServerReflectionResponse(
                    list_services_response=version.ListServiceResponse(service=names)
                )
            case "file_by_filename":
                found = self.schemas.file(request.file_by_filename)
            case "file_containing_symbol":
                found = self.schemas.file_of(request.file_containing_symbol)
            case "file_containing_extension" | "all_extension_numbers_of_type":
                return _refusal(version, Status.NOT_FOUND, "no message has extensions")
            case _:
                return _refusal(version, Status.INVALID_ARGUMENT, "the request is empty; set message_request")
        if not found:
            return _refusal(version, Status.NOT_FOUND, f"{getattr(request, kind)} is not known; list the services")
        return version.ServerReflectionResponse(
            file_descriptor_response=version.FileDescriptorResponse(file_descriptor_proto=found)
        )


def _libraries_files() -> Iterable[FileDescriptorProto]:
    """The files of grpclib's own services; they import nothing."""
    for module in (health_pb2, v1, v1alpha):
        yield FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


def _refusal(version: ModuleType, code: Status, message: str) -> Any:
    return version.ServerReflectionResponse(
        error_response=version.ErrorResponse(error_code=code.value, error_message=message)
    )
