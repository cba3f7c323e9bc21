"""Requests that nobody should send, in endless variety and the same for the same seed."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from PIL import Image

HOSTILE_NUMBERS = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "9007199254740993", "18446744073709551616",
    "9" * 5000, "-1", "0", "-0", "0.1", "1.0000000000000001", "4.0", "1e2", "01", "0x10", "+1", "1_000", "2.",
    ".5", "true", "null", "9223372036854775807", "9223372036854775808", "2147483648",
]  # fmt: skip
HOSTILE_TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "\udfffx", "\ufeff", "\u202e", "٣", "１２８x１２８", "128x128", "0x0",
    "-1x-1",
    "99999x99999", "999999999x1", "1e3x5", "NaN", "null", "true", "[]", "{}", "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd", "http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data/",
    "data:image/png;base64,",
    "data:image/png;base64,AAAA", "<script>alert(1)</script>", "'; DROP TABLE pictures; --", "%s%n%x",
    "${7*7}",
    "{a|b|{c|{d|e}}}", "{" * 200, "(" * 3000, "[cat:dog:0.3]", "__../../etc/passwd__", "<lora:x:1>",
    "BREAK " * 500,
    "x" * 10_001, "x" * 200_000, "\n\r\n", "a\r\nSet-Cookie: b", "scenes", "nothing", "euler", "😀" * 50,
    "e\u0301",
    "2020-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00", "0000-00-00", "scenes/../scenes", "hf://a/b",
    "openai://x",
]  # fmt: skip
TYPES = ["application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data",
         "image/png", "",
         "application/x-www-form-urlencoded", "multipart/form-data; boundary=",
         "multipart/form-data; boundary=x",
         "application/json\u00e9", "*/*", "application/octet-stream"]  # fmt: skip


@cache
def png(size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


@cache
def bomb() -> bytes:
    """A PNG of few bytes that has 8000x8000 pixels."""
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG", optimize=True)
    return file.getvalue()


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"]
PARTS = ["%", "%zz", "%00", "%ff%fe", "..%2f..%2f", "%2e%2e/", "a%20b", "%u0041", "%0d%0a"]
FILES = ["a.png", "../../a.png", "x" * 5000, "é\0.png", '"', "a.svg"]
PICTURE = base64.b64encode(png()).decode()
ONE = {"prompt": "a cat", "num_steps": 1, "seed": 3, "size": "128x128", "options": {}}
BODIES: dict[str, dict[str, Any]] = {  # by the beginning of a path: what is almost right
    "/api/jobs": {"requests": [ONE, {"prompt": "a dog", "num_images": 2, "num_steps": 1, "model": "scenes"}]},
    "/api/images": {"stars": 3, "note": "nice"},
    "/api/choices": {"winner": "0" * 32, "loser": "1" * 32},
    "/v1/images": {"prompt": "a cat", "n": 1, "size": "128x128", "response_format": "b64_json", "seed": 3,
                   "steps": 1,
                   "num_steps": 1, "stream": False, "partial_images": 1, "model": "scenes"},
    "/openai": {"prompt": "a cat", "n": 1, "size": "128x128", "num_steps": 1},
    "/models": {"inputs": "a cat", "parameters": {"num_inference_steps": 1, "seed": 3, "width": 128,
               "height": 128}},
    "/sdapi": {"prompt": "a cat", "steps": 1, "width": 128, "height": 128, "seed": 3, "batch_size": 1,
               "n_iter": 1,
               "cfg_scale": 2.0, "sampler_name": "Euler", "init_images": [PICTURE], "image": PICTURE,
               "override_settings": {"sd_model_checkpoint": "scenes"}, "denoising_strength": 0.5},
}  # fmt: skip
BODIES["/"] = BODIES["/models"]
HIDDEN = [("GET", "/"), ("POST", "/"), ("GET", "/static/{path}"), ("POST", "/models/{name}"), ("GET",
          "/docs"),
          ("POST", "/v1/images/edits"), ("POST", "/sdapi/v1/txt2img"), ("GET", "/{anything}")]  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """A request as bytes, and whether it was sent whole: those that were not may be answered with nothing."""

    sent: bytes
    whole: bool = True


def asks(document: Mapping[str, Any], ids: list[str], count: int, seed: int) -> Iterator[Ask]:
    """`count` requests over every route of an OpenAPI document. ids: of jobs and pictures that there are."""
    found = [(m.upper(), p, o) for p, methods in document["paths"].items() for m, o in methods.items()]
    found += [(method, path, {}) for method, path in HIDDEN]
    found = [one for one in found for _ in range(4 if one[0] in ("POST", "PATCH") else 1)]  # they take bodies
    chance = random.Random(seed)
    for at in range(count):
        method, path, said = found[at % len(found)]
        yield _Maker(chance, ids).ask(method, path, said)


class _Maker:
    def __init__(self, chance: random.Random, ids: list[str]) -> None:
        self.chance, self.ids = chance, ids

    def ask(self, method: str, path: str, said: Mapping[str, Any]) -> Ask:
        chance = self.chance
        if chance.random() < 0.03:
            method = chance.choice(METHODS)
        target = re.sub(r"\{[^}]*\}", lambda _: self.part(), path) + self.query(said)
        headers = {"Host": "127.0.0.1", "Connection": "close"}
        for parameter in said.get("parameters", ()):
            if parameter["in"] == "header" and chance.random() < 0.3:
                headers[parameter["name"]] = chance.choice(["", "x" * 300, "9" * 30, "-1", "é", "a b", "1"])
        body = b""
        if method not in ("GET", "HEAD", "OPTIONS") or chance.random() < 0.05:
            headers["Content-Type"], body = self.body(path)
        if chance.random() < 0.05:
            headers["Content-Encoding"] = chance.choice(["gzip", "br", "x"])
        return self.framed(method, target, headers, body)

    def part(self) -> str:
        """A part of a path: often one that exists, sometimes not even percent-encoded well."""
        choice = self.chance.random()
        if choice < 0.4 and self.ids:
            return self.chance.choice(self.ids)
        if choice < 0.5:
            return self.chance.choice(PARTS)
        return quote(self.chance.choice(HOSTILE_TEXTS)[:300].encode("utf-8", "surrogatepass"), safe="")

    def query(self, said: Mapping[str, Any]) -> str:
        names = [one["name"] for one in said.get("parameters", ()) if one["in"] == "query"]
        pairs = []
        for name in [*names, "unknown"]:
            if self.chance.random() < 0.3:
                value = self.chance.choice(HOSTILE_TEXTS + HOSTILE_NUMBERS)[:500]
                raw = quote(value.encode("utf-8", "surrogatepass"), safe="")
                pairs.append(f"{name}={raw if self.chance.random() < 0.9 else '%'}")
        return "?" + "&".join(pairs) if pairs else ""

    def body(self, path: str) -> tuple[str, bytes]:
        chance = self.chance
        almost = next((BODIES[name] for name in BODIES if name != "/" and path.startswith(name)), BODIES["/"])
        kind = chance.random()
        if kind < 0.6:
            return "application/json", self.damaged(self.written(self.changed(almost)))
        if kind < 0.7:
            boundary, parts = "frontier", self.parts(almost)
            return f"multipart/form-data; boundary={boundary}", self.damaged(parts)
        if kind < 0.8:
            odd = [png()[:40], b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 50, b""]
            picture = chance.choice([png(), bomb(), *odd])
            return chance.choice(TYPES), self.damaged(picture)
        if kind < 0.9:
            deep = chance.choice([50, 100, 1000, 100_000])
            return "application/json", chance.choice(
                [b"[" * deep, b'{"a":' * deep, b"[" * deep + b"]" * deep,
                 b'{"a":' * deep + b"1" + b"}" * deep,
                 b'{"requests":' + b"[" * deep + b"]" * deep + b"}", b"[" + b"[]," * deep * 10 + b"[]]"]
            )  # fmt: skip
        whole = json.dumps(almost).encode()
        return chance.choice(TYPES), chance.choice(
            [b"", b"null", b"[]", b"3", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf" + whole,
             whole.decode().encode("utf-16"),
             b" " * 100_000, whole * 2, whole[:-1], chance.randbytes(300)]
        )  # fmt: skip

    def changed(self, almost: Any) -> Any:
        """With up to three of its values, at any depth, replaced, removed or multiplied."""
        body = copy.deepcopy(almost)
        for _ in range(self.chance.choice([0, 1, 1, 2, 3])):
            place: Any = body
            while True:
                keys = list(place) if isinstance(place, dict) else range(len(place))
                if not keys:
                    break
                key = self.chance.choice(list(keys))
                if isinstance(place[key], (dict, list)) and place[key] and self.chance.random() < 0.75:
                    place = place[key]
                    continue
                choice = self.chance.random()
                if choice < 0.1:
                    del place[key]
                elif choice < 0.2 and isinstance(place, dict):
                    place[self.chance.choice(HOSTILE_TEXTS)[:200] or "path"] = place[key]
                else:
                    place[key] = self.value()
                break
        return body

    def value(self) -> Any:
        choice = self.chance.random()
        if choice < 0.4:
            return self.chance.choice(HOSTILE_TEXTS)
        if choice < 0.8:
            return f"\x01{self.chance.choice(HOSTILE_NUMBERS)}\x01"  # written without its quotes
        inner = self.chance.choice(HOSTILE_TEXTS)
        return self.chance.choice(
            [None, True, [], {}, [[]], {"path": inner}, {"a": {"path": inner}}, {"sha256": "0" * 64},
             [inner] * 3,
             {"image": {"path": inner}}, {"image": inner}, {"lora": [{"name": inner}]}, [1, 2, 3], [128,
              128.5]]
        )  # fmt: skip

    def written(self, body: Any) -> bytes:
        text = json.dumps(body, ensure_ascii=self.chance.random() < 0.8)
        text = re.sub(r'"\\u0001([^"]*)\\u0001"', r"\1", text)
        return text.encode("utf-8", "surrogatepass")

    def parts(self, almost: Mapping[str, Any]) -> bytes:
        chance, end = self.chance, "\r\n"
        said = b""
        for name, value in almost.items():
            text = chance.choice([str(value), chance.choice(HOSTILE_TEXTS), chance.choice(HOSTILE_NUMBERS)])
            said += f'--frontier{end}Content-Disposition: form-data; name="{name}"{end}{end}'.encode()
            said += text.encode("utf-8", "surrogatepass") + b"\r\n"
        for name in ("image", "mask", "image[]")[: chance.randint(0, 3)]:
            disposition = f'form-data; name="{name}"; filename="{chance.choice(FILES)}"'
            said += f"--frontier{end}Content-Disposition: {disposition}{end}".encode()
            more = [b"Content-Type: image/png\r\n\r\n", b"\r\n", b"Content-Length: -5\r\n\r\n", b""]
            said += chance.choice(more)
            said += chance.choice([png(), bomb(), b"no picture", b""]) + b"\r\n"
        if chance.random() < 0.1:
            said += b'--frontier\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 3000
        return said + chance.choice([b"--frontier--\r\n", b"", b"--frontier", b"--other--\r\n"])

    def damaged(self, body: bytes) -> bytes:
        choice = self.chance.random()
        if choice < 0.8 or not body:
            return body
        at = self.chance.randrange(len(body))
        if choice < 0.87:
            return body[:at]
        if choice < 0.94:
            return body[:at] + self.chance.randbytes(self.chance.randint(1, 8)) + body[at:]
        return body[:at] + bytes([self.chance.randrange(256)]) + body[at + 1 :]

    def framed(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Ask:
        """As bytes; now and then what HTTP does not allow."""
        chance, choice = self.chance, self.chance.random()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {target} HTTP/1.1\r\n{lines}".encode("utf-8", "surrogatepass")
        if choice < 0.82:
            return Ask(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if choice < 0.88:
            cut = chance.randint(0, len(body))
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:cut], body[cut:]) if p)
            return Ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
        nonsense = [
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nabc", b"Content-Length: -1\r\n\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            b"Content-Length: 1e3\r\n\r\nabc",
            b"Transfer-Encoding: gzip\r\n\r\nabc", b"Content-Length: 9999999999999\r\n\r\nabc",
            b"\0: \0\r\n\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", b"Content-Length: 50\r\n\r\nabc",
            b"X\r\n\r\n",
            b"Host: evil.example\r\n\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            b": x\r\n\r\n",
            b"X: " + b"y" * 70_000 + b"\r\n\r\n", b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n{}\n",
            b"",
        ]  # fmt: skip
        return Ask(head + chance.choice(nonsense), whole=False)
