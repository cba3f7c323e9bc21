"""AWS Signature Version 4: how Amazon's services are shown that a caller has a key.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import datetime
from urllib.parse import parse_qsl, quote, urlsplit

from pictura.providers._calls import Call

__all__ = ["signed"]


def signed(
    call: Call, *, access: str, secret: str, token: str | None, region: str, service: str, now: datetime
) -> Call:
    """`call` with the headers that prove the key. It is good for about five minutes."""
    parts = urlsplit(call.url)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {name.lower(): value for name, value in call.headers.items()}
    headers |= {"host": parts.netloc, "x-amz-date": stamp}
    if token is not None:
        headers["x-amz-security-token"] = token
    covered = sorted(
        name for name in headers if name in ("accept", "content-type", "host") or name.startswith("x-amz-")
    )
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in parse_qsl(parts.query)
    )
    request = "\n".join(
        [
            call.method,
            quote(parts.path or "/", safe="/-_.~"),  # encoded once more than in the request
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in covered),
            "",
            ";".join(covered),
            hashlib.sha256(call.body or b"").hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for word in (day, region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    proof = f"Credential={access}/{scope}, SignedHeaders={';'.join(covered)}, Signature={signature}"
    return replace(call, headers={**headers, "authorization": f"AWS4-HMAC-SHA256 {proof}"})
