"""The schemas as descriptors, for server reflection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet


def own_files() -> tuple[FileDescriptorProto, ...]:
    """Of proto/, and what they import. Blocks for one read of a file of the package."""
    data = (files("vmpool.wire.generated") / "descriptors.binpb").read_bytes()
    return tuple(FileDescriptorSet.FromString(data).file)


class Schemas:
    """What a server that has these services can tell of them, and nothing of others."""

    def __init__(self, services: Iterable[str], *, among: Iterable[FileDescriptorProto]) -> None:
        """`services` are full names. What they need must be `among` the files, which need not all be needed."""
        self.services = tuple(sorted(services))
        self._among = {file.name: file for file in among}
        self._file_of = {symbol: file.name for file in self._among.values() for symbol in _symbols(file)}
        self._told: dict[str, tuple[bytes, ...]] = {}
        """By name: the file, and after it what it imports, each serialized."""
        for service in self.services:
            self._learn(self._file_of[service])

    def file(self, name: str) -> tuple[bytes, ...]:
        """A file and all that it imports, serialized; none if there is no such file."""
        return self._told.get(name, ())

    def file_of(self, symbol: str) -> tuple[bytes, ...]:
        """`file` for the one that defines a service, method, message, field, enum or value of one."""
        return self.file(self._file_of.get(symbol, ""))

    def _learn(self, name: str) -> tuple[bytes, ...]:
        if name not in self._told:
            file = self._among[name]
            imported = [each for dependency in file.dependency for each in self._learn(dependency)]
            self._told[name] = tuple(dict.fromkeys([file.SerializeToString(), *imported]))
        return self._told[name]


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    for message in file.message_type:
        yield from _of_message(message, scope=file.package)
    for enum in file.enum_type:
        yield from _of_enum(enum, scope=file.package)
    for service in file.service:
        yield f"{file.package}.{service.name}"
        yield from (f"{file.package}.{service.name}.{method.name}" for method in service.method)


def _of_message(message: DescriptorProto, *, scope: str) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield name
    yield from (f"{name}.{field.name}" for field in message.field)
    yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)
    for nested in message.nested_type:
        yield from _of_message(nested, scope=name)
    for enum in message.enum_type:
        yield from _of_enum(enum, scope=name)


def _of_enum(enum: EnumDescriptorProto, *, scope: str) -> Iterator[str]:
    """Values stand beside their enum, as in C++."""
    yield f"{scope}.{enum.name}"
    yield from (f"{scope}.{value.name}" for value in enum.value)
