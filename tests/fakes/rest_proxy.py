"""A proxy before a REST API of Google's that refuses on purpose, as Google does.

`faults` is called before each request with (method, path, body) and returns None, or (status, reason,
message); or an object, which is the answer; or LOST: it is passed on, and its answer is lost.
"""
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler

from . import Server

LOST = "lost"


class RestProxy:
    """`with RestProxy(upstream) as rest:` serves on a free port of 127.0.0.1."""

    def __init__(self, upstream, faults=lambda method, path, body: None):
        self.upstream, self.faults, self.requests, self.tokens = upstream, faults, [], set()
        self.server = Server(("127.0.0.1", 0), type("Handler", (Handler,), {"proxy": self}))

    url = property(lambda self: f"http://127.0.0.1:{self.server.server_port}")

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]
        self.proxy.requests.append((self.command, path))
        self.proxy.tokens.add(self.headers.get("authorization", ""))
        fault = self.proxy.faults(self.command, path, body)
        if isinstance(fault, dict):
            self.answer(200, json.dumps(fault).encode())
        elif fault == LOST:
            self.forwarded(body)
            self.close_connection = True
        elif fault:
            status, reason, message = fault
            errors = [{"message": message, "domain": "global", "reason": reason}]
            self.answer(status, json.dumps({"error": {"code": status, "message": message, "errors": errors}}).encode())
        else:
            self.answer(*self.forwarded(body))

    do_POST = do_PATCH = do_DELETE = do_GET

    def forwarded(self, body):
        headers = {"Content-Type": self.headers.get("content-type", "application/json")}
        request = urllib.request.Request(self.proxy.upstream + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
