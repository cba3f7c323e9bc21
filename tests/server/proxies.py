"""nginx and Caddy as docs/server.md configures them: real processes on loopback, with a certificate each."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

from documented import block, put
from serving import Server

NAME = "pictures.example"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # nginx is not on everybody's

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
    storage file_system {folder}/storage
}}
{site}
"""


def missing(name: str) -> list[str]:
    """The programs that a proxy of this name needs and that are not installed."""
    return [one for one in (name, "openssl") if shutil.which(one, path=PATH) is None]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def certificate(folder: Path) -> None:
    """`pem` and `key` for NAME, signed by itself."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-days", "2"]
    command += ["-keyout", str(folder / "key"), "-out", str(folder / "pem")]
    subprocess.run(command, check=True, capture_output=True)


class Proxy:
    """A proxy in front of `server`; `start` and `stop`. name: nginx or caddy."""

    def __init__(self, name: str, folder: Path, server: Server) -> None:
        self.name, self.folder, self.port = name, folder, free_port()
        folder.mkdir()
        certificate(folder)
        self.trusted = ssl.create_default_context(cafile=str(folder / "pem"))
        there = {"127.0.0.1:7860": f"127.0.0.1:{server.port}"}
        if name == "nginx":
            shown = block("server.md", "proxy_pass")
            there |= {"443": str(self.port)}
            there |= {f"/etc/ssl/pictures.{end}": str(folder / end) for end in ("pem", "key")}
            # Its workers are of the user that Debian's packages make, who may not enter the test's folder.
            user = "user root;" if os.geteuid() == 0 else ""
            self.configuration = NGINX.format(folder=folder, site=put(shown, there), user=user)
            self.command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "configuration")]
        else:
            shown = block("server.md", "reverse_proxy")
            own = f"{NAME}:{self.port} {{\n    tls {folder}/pem {folder}/key\n"
            self.configuration = CADDY.format(folder=folder, site=put(shown, there | {f"{NAME} {{\n": own}))
            self.command = ["caddy", "run", "--adapter", "caddyfile"]
            self.command += ["--config", str(folder / "configuration")]

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    def start(self) -> Proxy:
        (self.folder / "configuration").write_text(self.configuration)
        home = {"HOME": str(self.folder), "PATH": PATH}
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=home, cwd=self.folder)
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{self.name}: {self.log}\n{self.configuration}") from None
                time.sleep(0.05)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
