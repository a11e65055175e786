"""A Storage Write API that keeps nothing, for measuring: it counts rows and minds their offsets.
Runs in the emulator's Python (`scripts/bigquery install`).

    write_sink.py REST_PORT GRPC_PORT
"""
import itertools
import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
COMMITTED = types.WriteStream.Type.COMMITTED


class Sink:
    def __init__(self):
        self.rows, self.numbers = {}, itertools.count()

    def create(self, request, _):
        name = f"{request.parent}/streams/{next(self.numbers)}"
        self.rows[name] = 0
        return types.WriteStream(name=name, type_=COMMITTED)

    def get(self, request, _):
        return types.WriteStream(name=request.name, type_=COMMITTED)

    def finalize(self, request, _):
        return types.FinalizeWriteStreamResponse(row_count=self.rows.get(request.name, 0))

    def append(self, requests, context):
        name = schema = None
        for request in requests:
            name = request.write_stream or name
            if request.arrow_rows.writer_schema.serialized_schema:
                schema = pa.ipc.read_schema(pa.py_buffer(request.arrow_rows.writer_schema.serialized_schema))
            rows = pa.ipc.read_record_batch(pa.py_buffer(request.arrow_rows.rows.serialized_record_batch), schema)
            if request.offset != self.rows[name]:
                context.abort(grpc.StatusCode.OUT_OF_RANGE, f"{name} has {self.rows[name]} rows, not {request.offset}")
            self.rows[name] += rows.num_rows
            yield types.AppendRowsResponse(append_result={"offset": request.offset}, write_stream=name)


class Rest(BaseHTTPRequestHandler):
    """Datasets and tables as they were made."""

    protocol_version = "HTTP/1.1"
    things = {}

    def do_GET(self):
        thing = self.things.get(self.path.split("?")[0])
        self.answer(200, thing) if thing else self.answer(404, {"error": {"code": 404, "message": "Not found"}})

    def do_POST(self):
        thing = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith(":testIamPermissions"):
            return self.answer(200, {"permissions": thing["permissions"]})
        reference = thing.get("tableReference") or thing["datasetReference"]
        path = self.path.split("?")[0]
        self.things[f"{path}/{reference.get('tableId') or reference['datasetId']}"] = {**thing, "numRows": "0"}
        self.answer(200, thing)

    def answer(self, status, thing):
        body = json.dumps(thing).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main(rest_port, grpc_port):
    sink = Sink()
    unary = lambda call, request, response: grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=request.deserialize, response_serializer=response.serialize
    )
    handlers = {
        "CreateWriteStream": unary(sink.create, types.CreateWriteStreamRequest, types.WriteStream),
        "GetWriteStream": unary(sink.get, types.GetWriteStreamRequest, types.WriteStream),
        "FinalizeWriteStream": unary(sink.finalize, types.FinalizeWriteStreamRequest, types.FinalizeWriteStreamResponse),
        "AppendRows": grpc.stream_stream_rpc_method_handler(
            sink.append,
            request_deserializer=types.AppendRowsRequest.deserialize,
            response_serializer=types.AppendRowsResponse.serialize,
        ),
    }
    server = grpc.server(futures.ThreadPoolExecutor(32), options=UNLIMITED)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("google.cloud.bigquery.storage.v1.BigQueryWrite", handlers)]
    )
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", int(rest_port)), Rest).serve_forever, daemon=True).start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
