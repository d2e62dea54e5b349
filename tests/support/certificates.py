"""A certificate authority and a server's certificate for this machine, made on the spot."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.services import missing

#: For `localhost` and 127.0.0.1, with all that a strict client asks for.
_CONFIG = """\
[req]
prompt = no
distinguished_name = name
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """An authority of its own, and what it has signed, in `folder`, which is made."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl", "it is not on PATH")
    folder.mkdir()

    def run(*arguments: str) -> None:
        subprocess.run([str(openssl), *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "authority.cnf").write_text(_CONFIG.format(name="promptmill test authority"))
    (folder / "server.cnf").write_text(_CONFIG.format(name="localhost"))
    run(
        "req", "-x509", *_KEY, "-days", "2", "-config", "authority.cnf",
        "-extensions", "authority", "-keyout", "authority.key", "-out", "authority.pem",
    )  # fmt: skip
    run("req", *_KEY, "-config", "server.cnf", "-keyout", "server.key", "-out", "server.csr")
    run(
        "x509", "-req", "-in", "server.csr", "-CA", "authority.pem", "-CAkey", "authority.key",
        "-CAcreateserial", "-days", "2", "-extfile", "server.cnf", "-extensions", "server",
        "-out", "server.pem",
    )  # fmt: skip
    return Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
