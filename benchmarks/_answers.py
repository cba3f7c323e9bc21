"""A server that answers every request with one small picture after a pause.

`python _answers.py SECONDS [awake]` prints its port. Written on asyncio's protocols, so that it is not what
limits a client. With "awake" it never sleeps, for which it needs a core of its own: a pause then ends when it
should, where a process that has to be woken is a millisecond late, and whoever writes to it does not pay for
waking it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys

from PIL import Image


def answer() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    body = json.dumps({"created": 1, "data": [{"b64_json": picture}]}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Answering(asyncio.Protocol):
    seconds, content = 0.05, answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (at := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:at].lower()
            mark = head.find(b"content-length:")
            length = int(head[mark + 15 :].split(b"\r\n")[0]) if mark >= 0 else 0
            if len(self.buffer) < at + 4 + length:
                return
            self.buffer = self.buffer[at + 4 + length :]
            asyncio.get_running_loop().call_later(self.seconds, self.transport.write, self.content)


def keep_awake(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(keep_awake, loop)


async def main() -> None:
    Answering.seconds = float(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    if sys.argv[2:] == ["awake"]:
        keep_awake(asyncio.get_running_loop())
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
