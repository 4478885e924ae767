"""Calls by their full names, `package.Service/Method`, through the stubs that were made of the .proto files; and what a test of one says.

A row (`Row`) has a request that is answered and requests that are refused, each with its code, its words and, where there are some, its
details.
"""

import dataclasses
import importlib

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode as Code
from grpc_health.v1 import health_pb2 as health, health_pb2_grpc  # noqa: F401
from grpc_reflection.v1alpha import reflection_pb2 as reflection, reflection_pb2_grpc  # noqa: F401

import door
from door import SHOWN, TOKEN, error_details, rpc_status

for file in door.FILES:
    door.made(file)
POOL = descriptor_pool.Default()
# A call that hangs fails.
SECONDS = 60
# The packages know the older name of reflection, whose messages are those of the newer one.
ALIASES = {"grpc.reflection.v1.ServerReflection": "grpc.reflection.v1alpha.ServerReflection"}

# Whom the server of these tests knows, beside `ci`, who may all: see main.rs.
READER, NARROW, CARELESS, BERT, STRANGER = (
    (("authorization", f"Bearer {TOKEN}-{name}"),) for name in ("reader", "narrow", "careless", "bert", "stranger")
)
OPERATOR = (("authorization", f"Bearer {door.ADMIN_TOKEN}"),)
NOBODY, WRONG = (), (("authorization", "Bearer wrong"),)


@dataclasses.dataclass
class Refused:
    """A request that is refused.

    - `request`: a message, a list of them of a stream, or a function that makes it; none: the row's own.
    - `words`: a regular expression, found in what is said.
    - `details`: `{kind of detail: {what it names}}`, all of them.
    """

    why: str
    code: Code
    words: str
    request: object = None
    shown: tuple = None
    details: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Row:
    """A call, answered and refused.

    - `check`: holds what was answered to what is right; a list of messages, if it streams.
    - `first`: how many messages of an answer that goes on are read.
    - `is_open`: whether it is for who shows nothing, too.
    """

    good: object
    check: object
    refused: list
    shown: tuple = SHOWN
    first: int = None
    is_open: bool = False


def service(name):
    return POOL.FindServiceByName(ALIASES.get(name, name))


def shapes(described):
    """Of each method of a service what it takes and answers, and whether these are streams."""
    return {
        one.name: (one.input_type.lstrip("."), one.output_type.lstrip("."), one.client_streaming, one.server_streaming)
        for one in described.method
    }


def stub_of(name):
    """A call as its stub has it."""
    of, method = name.split("/")
    if of in ALIASES:
        shape = service(of).methods_by_name[method]
        parts = [{False: "unary", True: "stream"}[streams] for streams in (shape.client_streaming, shape.server_streaming)]
        make = getattr(door.CHANNEL, "_".join(parts))
        answer = GetMessageClass(shape.output_type)
        return make(f"/{name}", GetMessageClass(shape.input_type).SerializeToString, answer.FromString)
    described = service(of)
    module = importlib.import_module(described.file.name.removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
    return getattr(getattr(module, f"{described.name}Stub")(door.CHANNEL), method)


def call(name, request, shown, first=None):
    """Calls, and reads the answer to its end or as many messages of it."""
    request = request() if callable(request) else request
    answer = stub_of(name)(iter(request) if isinstance(request, list) else request, metadata=shown, timeout=SECONDS)
    if not isinstance(answer, grpc.Call):
        return answer
    messages = []
    for message in answer:
        messages.append(message)
        if len(messages) == first:
            answer.cancel()
            break
    return messages


def details_of(error):
    """What an error's details name, by their kind."""
    found = {}
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        status = rpc_status.Status.FromString(value)
        assert (status.code, status.message) == (error.code().value[0], error.details()), "the details are of another status"
        for packed in status.details:
            kind = packed.TypeName().rsplit(".", 1)[1]
            detail = getattr(error_details, kind)()
            assert packed.Unpack(detail)
            found[kind] = {
                "BadRequest": lambda: {one.field for one in detail.field_violations if one.description},
                "PreconditionFailure": lambda: {f"{one.type} {one.subject}" for one in detail.violations},
            }.get(kind, lambda: set())()
    return found
