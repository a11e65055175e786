"""A proxy before a Storage Write API, with faults on purpose. Runs in the emulator's Python.

    write_proxy.py LISTEN UPSTREAM FAULTS

FAULTS is `n=fault,…`: what happens to the n-th append (from 0), over all streams.
    cut        the connection ends before it is passed on
    lost       it is passed on, and the connection ends instead of the answer
    throttled  RESOURCE_EXHAUSTED
    expired    its stream is finalized first
    gone       nobody knows its stream any more, nor how many rows it had, as one that was idle for days
    exists     it is passed on, and answered with ALREADY_EXISTS
    beyond     OUT_OF_RANGE
    stall      it is passed on, and never answered
    denied     PERMISSION_DENIED
    rows       row errors for its first row, and nothing is appended
    slow       the answer comes late
"""
import itertools
import sys
import threading
import time
from concurrent import futures

import grpc
from google.cloud.bigquery_storage_v1 import types

SERVICE = "/google.cloud.bigquery.storage.v1.BigQueryWrite/"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SLOW_SECONDS = 0.5
# More than any test waits for an answer.
STALL_SECONDS = 60
# As BigQuery has it.
REQUEST_MAX_BYTES = 10_000_000


class Proxy(grpc.GenericRpcHandler):
    def __init__(self, upstream, faults):
        self.channel = grpc.insecure_channel(upstream, options=UNLIMITED)
        self.faults, self.numbers, self.lock = faults, itertools.count(), threading.Lock()
        self.gone = set()

    def service(self, details):
        if details.method == SERVICE + "AppendRows":
            return grpc.stream_stream_rpc_method_handler(self.append)
        unary = self.channel.unary_unary(details.method)

        def forward(request, context):
            if any(stream.encode() in request for stream in self.gone):
                context.abort(grpc.StatusCode.NOT_FOUND, "Requested entity was not found, on purpose")
            try:
                return unary(request, metadata=routing(context))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.unary_unary_rpc_method_handler(forward)

    def append(self, requests, context):
        # The stream is named by the first request only.
        stream = None
        for request in requests:
            with self.lock:
                number = next(self.numbers)
            fault = self.faults.get(number)
            if len(request) > REQUEST_MAX_BYTES:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"AppendRows request too large: {len(request)}")
            message = types.AppendRowsRequest.deserialize(request)
            if message.write_stream:
                stream, first = message.write_stream, request
            if (message.offset or 0) < 0:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Offset {message.offset} is negative")
            if fault == "cut":
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut on purpose")
            if fault == "gone":
                self.gone.add(stream)
            if stream in self.gone:
                context.abort(grpc.StatusCode.NOT_FOUND, "Requested entity was not found, on purpose")
            if fault == "denied":
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "Permission 'TABLES_UPDATE_DATA' denied on resource, on purpose")
            if fault == "throttled":
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much, on purpose")
            if fault == "rows":
                error = types.RowError(index=0, code="FIELDS_ERROR", message="refused on purpose")
                status = {"code": grpc.StatusCode.INVALID_ARGUMENT.value[0], "message": "rows are invalid"}
                yield types.AppendRowsResponse.serialize(types.AppendRowsResponse(row_errors=[error], error=status))
                continue
            if fault == "beyond":
                yield refusal(grpc.StatusCode.OUT_OF_RANGE, "beyond the end of the stream, on purpose")
                continue
            if fault == "expired":
                finalize = self.channel.unary_unary(SERVICE + "FinalizeWriteStream")
                finalize(types.FinalizeWriteStreamRequest.serialize(types.FinalizeWriteStreamRequest(name=stream)))
            try:
                # One call for each: the emulator wants the schema with it, which the first has.
                if request is not first:
                    whole = types.AppendRowsRequest.deserialize(first)
                    whole.arrow_rows.rows, whole.offset = message.arrow_rows.rows, message.offset
                    request = types.AppendRowsRequest.serialize(whole)
                answer = next(iter(self.channel.stream_stream(SERVICE + "AppendRows")(iter([request]))))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            if fault == "lost":
                context.abort(grpc.StatusCode.UNAVAILABLE, "answer lost on purpose")
            if fault == "slow":
                time.sleep(SLOW_SECONDS)
            if fault == "stall":
                over = threading.Event()
                if context.add_callback(over.set):
                    over.wait(STALL_SECONDS)
                return
            if fault == "exists":
                answer = refusal(grpc.StatusCode.ALREADY_EXISTS, "there already, on purpose")
            yield answer


def refusal(status, message):
    error = {"code": status.value[0], "message": message}
    return types.AppendRowsResponse.serialize(types.AppendRowsResponse(error=error))


def routing(context):
    return [pair for pair in context.invocation_metadata() if pair.key == "x-goog-request-params"]


def main(listen, upstream, faults):
    planned = dict(fault.split("=") for fault in faults.split(",") if fault)
    server = grpc.server(futures.ThreadPoolExecutor(64), options=UNLIMITED)
    proxy = Proxy(upstream, {int(number): fault for number, fault in planned.items()})
    service = type("Service", (grpc.GenericRpcHandler,), {"service": lambda _, details: proxy.service(details)})
    server.add_generic_rpc_handlers([service()])
    server.add_insecure_port(listen)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
