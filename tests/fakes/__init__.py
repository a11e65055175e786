"""Servers that speak a cloud's protocol from this process, and can misbehave on purpose."""
from http.server import ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Of the ports of 127.0.0.1, for many connections at once."""

    daemon_threads = True
    # Of 5, the default, one request in many comes a second late, and never if the client ends first.
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # a client that was killed, or has seen enough
