"""A web server that serves files, and misbehaves as it is told."""
import base64
import email.utils
import http.server
import re
import threading
import time

from . import Server


class Web:
    """Serves `files` (path to bytes) on 127.0.0.1. What it does wrong are its attributes."""

    def __init__(self):
        self.files = {}
        self.cut = None  # breaks each answer off after so many bytes of its body
        self.refuse = []  # statuses for the next requests, one each
        self.retry_after = None  # what those say: seconds, or a date
        self.ranges = True  # False: each answer is the whole file
        self.longer = 0  # says so many bytes more than there are, and closes
        self.slow = 0  # seconds between two pieces of 64 KiB
        self.etags = True  # False: none, "weak": one weak tag for all
        self.modified = []  # seconds since 1970, of the next answers; the last of them stays
        self.silent = False  # True: answers nothing, until it is not
        self.stall = None  # each answer's body stops after so many bytes, until this is None
        self.login = None  # user and password that it asks for
        self.redirect = {}  # path to URL
        self.requests = []  # path, the range's first byte (None: no range), headers
        self.sent = 0
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                web.answer(self)

            do_HEAD = do_GET

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        path = request.path.split("?")[0]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        self.requests.append((path, int(asked[1]) if asked else None, dict(request.headers)))
        while self.silent:
            time.sleep(0.02)
        if self.refuse:
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return self.status(request, self.refuse.pop(0), **headers)
        expected = self.login and "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
        if expected and request.headers.get("Authorization") != expected:
            return self.status(request, 401)
        if path in self.redirect:
            return self.status(request, 302, Location=self.redirect[path])
        if path not in self.files:
            return self.status(request, 404)
        body, etag = self.files[path], f'"{hash(self.files[path])}"'
        if self.etags == "weak":
            etag = 'W/"any"'
        # A weak tag matches nothing (RFC 9110, 13.1.1).
        if (asked_for := request.headers.get("If-Match")) and (asked_for != etag or self.etags == "weak"):
            return self.status(request, 412)
        size = len(body)
        first = int(asked[1]) if asked and self.ranges else 0
        last = min(int(asked[2]), size - 1) if asked and self.ranges and asked[2] else size - 1
        if first > last and size:
            return self.status(request, 416)
        part = asked and self.ranges
        request.send_response(206 if part else 200)
        if part:
            request.send_header("Content-Range", f"bytes {first}-{last + self.longer}/{size + self.longer}")
        if self.etags:
            request.send_header("ETag", etag)
        if self.modified:
            modified = self.modified.pop(0) if len(self.modified) > 1 else self.modified[0]
            request.send_header("Last-Modified", email.utils.formatdate(modified, usegmt=True))
        request.send_header("Content-Length", str(last - first + 1 + self.longer))
        request.end_headers()
        if request.command == "HEAD":
            return None
        body = memoryview(body)[first : last + 1]
        cut = self.cut is not None and len(body) > self.cut
        body = body[: self.cut] if cut else body
        for at in range(0, len(body), 65536):
            while self.stall is not None and at >= self.stall:
                time.sleep(0.02)
            request.wfile.write(body[at : at + 65536])
            self.sent += len(body[at : at + 65536])
            if self.slow:
                time.sleep(self.slow)
        if cut or self.longer:
            request.close_connection = True
        return None

    def status(self, request, code, **headers):
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()
