"""Google Cloud Storage's XML API, as much of it as object_store speaks, with faults on request.

`faults` is called before each request with (number, method, key) and returns what shall go wrong:
a status, or one of the constants below; None for nothing. Requests are counted from 0.
"""
import hashlib
import itertools
import json
import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from . import Server

# The connection ends: before the request was done, after it was done, in the middle of an answer.
CUT, LOST, TORN = "cut", "lost", "torn"
# It is done after so long.
DELAY_SECONDS = 0.3
DELAY = "delay"
# Where the JSON API tells of a bucket.
INFO = "/storage/v1/b/"
# A list says so many objects at once, so that every list has pages.
PAGE = 3


class Gcs:
    """`with Gcs("bucket") as gcs:` serves on a free port of 127.0.0.1; `objects` is what it holds."""

    def __init__(self, *buckets, faults=lambda number, method, key: None, location=None):
        # Of all buckets; None: the account may not see it.
        self.location = location
        self.objects = {bucket: {} for bucket in buckets}
        # Parts of what is uploaded in several: by its id, by their numbers.
        self.uploads, self.ids = {}, itertools.count(1)
        self.faults, self.requests, self.lock = faults, [], threading.Lock()
        self.server = Server(("127.0.0.1", 0), type("Handler", (Handler,), {"gcs": self}))

    url = property(lambda self: f"http://127.0.0.1:{self.server.server_port}")

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def save(self, bucket, prefix, folder):
        """What lies under a prefix, as files of a folder."""
        for key, body in self.objects[bucket].items():
            if key.startswith(f"{prefix}/"):
                path = folder / key.removeprefix(f"{prefix}/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
        return folder


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gcs = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def serve(self):
        url = urlsplit(self.path)
        if url.path.startswith(INFO):
            return self.tell_of(url.path.removeprefix(INFO))
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.gcs.lock:
            number = len(self.gcs.requests)
            self.gcs.requests.append((self.command, key))
        fault = self.gcs.faults(number, self.command, key)
        if fault == CUT:
            return self.hang_up()
        if fault == DELAY:
            time.sleep(DELAY_SECONDS)
        if isinstance(fault, int):
            return self.answer(fault, b"<Error><Code>Injected</Code></Error>", {"Retry-After": "0"})
        with self.gcs.lock:
            status, body, headers = self.result(bucket, key, parse_qs(url.query, keep_blank_values=True), body)
        if fault == LOST:
            return self.hang_up()
        self.answer(status, body, headers, torn=fault == TORN)

    def tell_of(self, bucket):
        """The one call of the JSON API: where a bucket is."""
        status, told = (200, {"location": self.gcs.location}) if bucket in self.gcs.objects else (404, {})
        if self.gcs.location is None:
            status, told = 403, {"error": {"code": 403, "message": "storage.buckets.get access denied"}}
        self.answer(status, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def result(self, bucket, key, query, body):
        if bucket not in self.gcs.objects:
            return 404, b"<Error><Code>NoSuchBucket</Code></Error>", {}
        objects = self.gcs.objects[bucket]
        if not key:
            return 200, listed(objects, query), {"Content-Type": "application/xml"}
        if "uploads" in query or "uploadId" in query:
            return self.in_parts(objects, key, query, body)
        if self.command == "PUT":
            if self.headers.get("x-goog-if-generation-match") == "0" and key in objects:
                return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
            objects[key] = body
            return 200, b"", headers_of(body)
        if key not in objects:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
        if self.command == "DELETE":
            del objects[key]
            return 204, b"", {}
        body, headers = objects[key], headers_of(objects[key])
        if self.command == "GET" and (asked := self.headers.get("range")):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            first, last = int(first), min(int(last or len(body) - 1), len(body) - 1)
            return 206, body[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(body)}"}
        return 200, body, headers

    def in_parts(self, objects, key, query, body):
        if "uploads" in query:
            upload = str(next(self.gcs.ids))
            self.gcs.uploads[upload] = {}
            said = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return 200, said.encode(), {"Content-Type": "application/xml"}
        upload = query["uploadId"][0]
        if self.command == "PUT":
            self.gcs.uploads[upload][int(query["partNumber"][0])] = body
            return 200, b"", headers_of(body)
        parts = self.gcs.uploads.pop(upload)
        if self.command == "DELETE":
            return 204, b"", {}
        named = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)]
        objects[key] = b"".join(parts[number] for number in named)
        etag = headers_of(objects[key])["ETag"]
        return 200, f"<CompleteMultipartUploadResult><ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>".encode(), {}

    def answer(self, status, body, headers, torn=False):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if torn else body)
        if torn:
            self.hang_up()

    def hang_up(self):
        self.close_connection = True
        self.wfile.flush()


def headers_of(body):
    digest = hashlib.md5(body).hexdigest()
    return {"ETag": f'"{digest}"', "Last-Modified": formatdate(0, usegmt=True), "x-goog-generation": "1"}


def listed(objects, query):
    prefix = query.get("prefix", [""])[0]
    after = max(query.get(name, [""])[0] for name in ("continuation-token", "start-after"))
    keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
    page = keys[:PAGE]
    items = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2019-10-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;x&quot;</ETag><Size>{len(objects[key])}</Size></Contents>"
        for key in page
    )
    more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(keys) > PAGE else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
        f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{items}{more}</ListBucketResult>"
    ).encode()
