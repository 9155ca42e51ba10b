"""Small HTTP servers in a thread: one answer for each path, or what a function answers."""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import orjson

Answer = Callable[[str, str, bytes], tuple[int, bytes]]  # of method, path and body


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Serve what ``answer`` returns, status and JSON body; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(self.command, self.path, asked)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def canned(answers: dict[str, Any]) -> Iterator[str]:
    """Serve JSON documents by path, and 404 for any other; yields the URL."""

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return 200 if path in answers else 404, orjson.dumps(answers.get(path))

    with answering(answer) as url:
        yield url


@contextmanager
def falsified(
    service: str, change: Callable[[dict[str, Any]], None], every: int
) -> Iterator[tuple[str, list[str]]]:
    """Pass requests on to a service and edit every n-th score's answer in place with ``change``.

    Yields the URL, and the request ids of the edited answers.
    """
    address, lock, edited = urlsplit(service).netloc, threading.Lock(), list[str]()
    numbers = itertools.count(1)

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address, timeout=30)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if path == "/v1/score":
            with lock:
                if next(numbers) % every == 0:
                    document = orjson.loads(content)
                    change(document)
                    edited.append(document.get("request_id", ""))
                    content = orjson.dumps(document)
        return response.status, content

    with answering(answer) as url:
        yield url, edited
