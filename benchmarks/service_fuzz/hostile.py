"""Makes requests that no careful client sends: each is bytes on a connection, drawn from a seeded generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATHS = ("/recall", "/similar", "/items")
_SURROGATES = ("\ud800", "\udfff", "a\udc00b")
_JSON = "application/json"


@dataclass(frozen=True)
class Hostile:
    """A request as it goes over the wire.

    Attributes:
      kind: what is wrong with it.
      wire: head and body.
      is_whole: whether the service has all it needs for an answer.
    """

    kind: str
    wire: bytes
    is_whole: bool = True


class Maker:
    """Draws requests.

    Args:
      seed: of the generator.
      most_bytes: size that bodies go up to.
      token: of writers; some requests bring it.
    """

    def __init__(self, *, seed: int, most_bytes: int, token: str) -> None:
        self._random = random.Random(seed)
        self._most_bytes, self._token = most_bytes, token
        self._kinds: dict[str, Callable[[], Hostile]] = {
            "any JSON": self._any_json, "wrong types": self._wrong_types, "many mistakes": self._many_mistakes,
            "surrogates": self._surrogates, "nesting": self._nesting, "long numbers": self._long_numbers,
            "many keys": self._many_keys, "keys twice": self._keys_twice, "any bytes": self._any_bytes,
            "rows": self._rows, "headers": self._headers, "paths": self._paths, "tiny chunks": self._tiny_chunks,
            "cut off": self._cut_off, "sound": self._sound,
        }  # fmt: skip

    def next(self) -> Hostile:
        """The next request."""
        return self._random.choice(list(self._kinds.values()))()

    # Bodies

    def _any_json(self) -> Hostile:
        return self._posted("any JSON", json.dumps(self._value(4)).encode())

    def _wrong_types(self) -> Hostile:
        keys = ("users", "items", "ids", "features", "k", "filters", "exclude", "histories", "caps", "min_cold_share",
                "fallback", "details", "exclude_seen", "nonsense")  # fmt: skip
        chosen = self._random.sample(keys, self._random.randint(1, 6))
        return self._posted("wrong types", json.dumps({key: self._value(3) for key in chosen}).encode())

    def _many_mistakes(self) -> Hostile:
        part = self._random.choice((b"{}", b"0.1", b"null", b"true", b"[]", b"-1", b'""', b"1e999", b'{"a":{}}'))
        frame = self._random.choice(
            (b'{"users":[%s]}', b'{"items":[%s]}', b'{"ids":[%s]}', b'{"features":[%s]}', b'{"features":[{"a":[%s]}]}',
             b'{"users":["a"],"filters":{"deny":[%s]}}', b'{"users":["a"],"filters":{"where":[%s]}}',
             b'{"users":["a"],"histories":{"a":[%s]}}', b'{"items":[{"a":[%s]}]}', b"[%s]")
        )  # fmt: skip
        return self._posted("many mistakes", frame % b",".join([part] * (self._size() // (len(part) + 1))))

    def _surrogates(self) -> Hostile:
        text = self._random.choice(_SURROGATES)
        content = self._random.choice(
            ({"users": [text]}, {"users": ["a"], "filters": {"deny": [text]}}, {"features": [{text: 1}]},
             {"users": ["a"], "filters": {"where": [{"column": text, "in": ["a"]}]}}, {"items": [text]},
             {"users": ["a"], "histories": {text: [text]}}, {"items": [{"item_id": text}]}, {text: text}, text)
        )  # fmt: skip
        return self._posted("surrogates", json.dumps(content).encode())

    def _nesting(self) -> Hostile:
        opening, closing = self._random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"users":[', b"]}")))
        depth = self._random.choice((30, 300, 3_000, self._size() // len(opening) // 2))
        return self._posted("nesting", opening * depth + b"1" + closing * self._random.choice((0, depth)))

    def _long_numbers(self) -> Hostile:
        number = self._random.choice((b"", b"-", b"0.", b"1e", b"1e-")) + b"9" * self._random.choice(
            (20, 4_000, self._size())
        )
        frame = self._random.choice(
            (
                b'{"users":["a"],"k":%s}',
                b'{"users":[%s]}',
                b'{"features":[{"a":%s}]}',
                b'{"users":["a"],"min_cold_share":%s}',
                b'{"items":[{"item_id":%s}]}',
            )
        )
        return self._posted("long numbers", frame % number)

    def _many_keys(self) -> Hostile:
        value = self._random.choice((b"0", b"{}", b"[0]", b'"x"'))
        frame = self._random.choice((b"{%s}", b'{"features":[{%s}]}', b'{"users":["a"],"histories":{%s}}',
                                     b'{"users":["a"],"caps":{%s}}', b'{"items":[{%s}]}'))  # fmt: skip
        keys = (b'"k%d":%s' % (number, value) for number in range(self._size() // (len(value) + 9)))
        return self._posted("many keys", frame % b",".join(keys))

    def _keys_twice(self) -> Hostile:
        return self._posted("keys twice", b"{" + b",".join([b'"users":["a"]'] * (self._size() // 14)) + b"}")

    def _any_bytes(self) -> Hostile:
        return self._posted("any bytes", self._random.randbytes(self._size()))

    def _rows(self) -> Hostile:
        rows = [
            {"item_id": f"fuzz-{self._random.randrange(50)}", "title": "\x1b[31m", "tags": self._value(2),
             "category": self._value(1), "published_ms": self._value(0), "x" * self._random.randint(1, 200): 1}
            for _ in range(self._random.randint(1, 300))
        ]  # fmt: skip
        return self._posted("rows", json.dumps({"items": rows}).encode(), path="/items", authorized=True)

    def _sound(self) -> Hostile:
        users = [f"u{self._random.randrange(1000):04d}" for _ in range(self._random.choice((1, 3, 20)))]
        content = {"users": users, "k": self._random.choice((1, 50, 200)), "details": self._random.random() < 0.5}
        return self._posted("sound", json.dumps(content).encode(), path="/recall")

    # What is around them

    def _headers(self) -> Hostile:
        body = b'{"users":["u0001"]}'
        name, value = self._random.choice(
            (("Content-Type", "text/plain"), ("Content-Type", "\x80\xff"), ("Content-Encoding", "gzip"),
             ("X-Request-ID", "a\tb" * 500), ("Host", "evil.example"), ("Authorization", "Bearer \xff"),
             ("Content-Length", "9" * 30), ("Content-Length", "-1"), ("Transfer-Encoding", "gzip"), ("Expect", "x"),
             ("X-Long", "a" * self._random.choice((1_000, 20_000, 200_000))), ("Upgrade", "websocket"),
             ("Cookie", "a=b; " * 2_000), ("Accept", "\x01"))
        )  # fmt: skip
        return self._posted("headers", body, path="/recall", extra=f"{name}: {value}\r\n")

    def _paths(self) -> Hostile:
        path = self._random.choice(
            ("/%1b[31m", "/%00", "/..%2f..%2fetc/passwd", "/recall/", "//evil.example/", "/%ff%fe", "/docs?a=%0a", "*",
             "/" + "a" * self._random.choice((10, 10_000, 300_000)), "/healthz?token=x", "/metrics", "http://evil/", "")
        )  # fmt: skip
        method = self._random.choice(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "get", "A" * 5_000))
        return Hostile("paths", f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    def _tiny_chunks(self) -> Hostile:
        head = self._head("/recall", "Transfer-Encoding: chunked\r\n")
        return Hostile("tiny chunks", head + b"1\r\n \r\n" * (self._size() // 6) + b"0\r\n\r\n")

    def _cut_off(self) -> Hostile:
        whole = self._posted("cut off", b'{"users":["u0001"]}').wire
        return Hostile("cut off", whole[: self._random.randrange(len(whole))], is_whole=False)

    def _posted(
        self, kind: str, body: bytes, *, path: str = "", extra: str = "", authorized: bool | None = None
    ) -> Hostile:
        body = body[: self._most_bytes] if self._random.random() < 0.95 else body
        path = path or self._random.choice(PATHS)
        if authorized or (authorized is None and self._random.random() < 0.5):
            extra += f"Authorization: Bearer {self._token}\r\n"
        method = "DELETE" if path == "/items" and self._random.random() < 0.3 else "POST"
        return Hostile(kind, self._head(path, f"{extra}Content-Length: {len(body)}\r\n", method=method) + body)

    def _head(self, path: str, headers: str, *, method: str = "POST") -> bytes:
        kind = "" if "Content-Type" in headers else f"Content-Type: {_JSON}\r\n"
        host = "" if "Host:" in headers else "Host: localhost\r\n"
        return f"{method} {path} HTTP/1.1\r\n{host}{kind}{headers}Connection: close\r\n\r\n".encode("latin-1")

    # Values

    def _size(self) -> int:
        """Bytes of a body: mostly few, and often as many as the limit lets through."""
        return self._random.choice((10, 1_000, 10_000, 100_000, self._most_bytes // 2, self._most_bytes))

    def _value(self, depth: int) -> Any:
        flat = (None, True, -1, 2**63, 10**30, 0.1, 1e308, float("nan"), float("inf"), "", " ", "a", "\x00", "x" * 600,
                *_SURROGATES, "🦉", "2024-01-01", "u0001", "i0001")  # fmt: skip
        if depth == 0 or self._random.random() < 0.4:
            return self._random.choice(flat)
        inner = [self._value(depth - 1) for _ in range(self._random.randint(0, 5))]
        names = ("column", "in", "not_in", "at_least", "where", "allow", "deny", "history", "category", "\ud800")
        return inner if self._random.random() < 0.5 else {self._random.choice(names): part for part in inner}
