"""Every call that reflection lists, through stubs made of the .proto files: answered, and refused with its code, words and details.

A call without a row, or with a row that has no good or no refused case, fails the test.
"""

import unittest

import grpc
from google.protobuf import descriptor_pb2
from grpc import StatusCode as Code

import calls
import door
import rows_cairn
import rows_reapi
import rows_sessions
from calls import NOBODY, STRANGER, WRONG, reflection
from door import Suite

REFLECTION = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def setUpModule():
    """Whom the tokens are for: main.rs."""
    door.make_bucket(door.BUCKET)
    door.make_bucket("other")
    door.make_bucket("elsewhere", tenant="second")
    Calls.rows = rows_reapi.rows() | rows_cairn.rows() | rows_sessions.rows()


def ask(**what):
    [answer] = calls.call(REFLECTION, [reflection.ServerReflectionRequest(**what)], NOBODY)
    return answer


def listed():
    """`{service: its description}`, of all that reflection lists."""
    services = {}
    for one in ask(list_services="").list_services_response.service:
        for encoded in ask(file_containing_symbol=one.name).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(encoded)
            services |= {one.name: service for service in file.service if f"{file.package}.{service.name}" == one.name}
    return services


class Calls(Suite):
    rows = {}

    def test_every_call_that_is_listed_has_a_good_and_a_refused_case_and_no_other_has(self):
        methods = {f"{name}/{one.name}" for name, service in listed().items() for one in service.method}
        self.assertEqual(methods, set(self.rows))
        for name, row in self.rows.items():
            self.assertTrue(row.good is not None and row.check and row.refused, f"{name}: a case is missing")
            for case in row.refused:
                self.assertTrue(case.words and case.code not in (Code.OK, Code.UNKNOWN), f"{name}: {case.why}")
                self.assertTrue(case.request is not None or case.shown is not None, f"{name}: {case.why}: the same as the good one")

    def test_what_is_listed_is_what_the_files_say(self):
        served = listed()
        for name, service in served.items():
            if name in calls.ALIASES:
                continue
            known = descriptor_pb2.ServiceDescriptorProto()
            calls.service(name).CopyToProto(known)
            is_own_file = not name.startswith("grpc.")
            # Of gRPC's own services the Python packages may know calls that are newer.
            known = {call: shape for call, shape in calls.shapes(known).items() if is_own_file or call in calls.shapes(service)}
            self.assertEqual(calls.shapes(service), known, name)
        own = [calls.POOL.FindFileByName(file) for file in door.FILES if file.startswith("cairn/")]
        services = {service.full_name for file in own for service in file.services_by_name.values()}
        self.assertLessEqual(services, set(served), "a service of our own is not served")

    def test_every_call_answers(self):
        for name, row in self.rows.items():
            with self.subTest(name):
                answer = calls.call(name, row.good, row.shown, row.first)
                self.assertTrue(row.check(answer), answer)

    def test_every_call_refuses(self):
        for name, row in self.rows.items():
            for case in row.refused:
                with self.subTest(f"{name}: {case.why}"):
                    request = row.good if case.request is None else case.request
                    shown = row.shown if case.shown is None else case.shown
                    error = self.refused(case.code, calls.call, name, request, shown)
                    self.assertRegex(error.details(), case.words)
                    self.assertEqual(calls.details_of(error), case.details)

    def test_nothing_is_told_to_who_is_nobody(self):
        for name, row in self.rows.items():
            if not row.is_open:
                for shown in (NOBODY, WRONG):
                    with self.subTest(name, shown=shown):
                        error = self.refused(Code.UNAUTHENTICATED, calls.call, name, row.good, shown)
                        self.assertRegex(error.details(), "token|opens nothing here")

    def test_calls_that_there_are_not_are_unimplemented(self):
        for name in ("cairn.v1.Nothing/Call", "google.bytestream.ByteStream/Nothing", "grpc.health.v1.Health/check"):
            with self.subTest(name):
                call = door.CHANNEL.unary_unary(f"/{name}")
                self.refused(Code.UNIMPLEMENTED, call, b"", metadata=STRANGER, timeout=calls.SECONDS)


if __name__ == "__main__":
    unittest.main()
