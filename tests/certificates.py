"""A certificate authority for one test session, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Attributes: `ca`: whom to trust; `chain` and `key`: of a server called localhost, 127.0.0.1 and as asked for."""

    ca: Path
    chain: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, *hosts: str) -> Certificates:
        """Make them, valid for a day, for these hosts as well; the folder, too, if it is not there."""
        folder.mkdir(exist_ok=True)

        def openssl(*words: str) -> None:
            subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl(
            "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "1", "-subj", "/CN=Test CA",
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
        openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        names = ["DNS:localhost", "IP:127.0.0.1", *(f"DNS:{host}" for host in hosts)]
        (folder / "names").write_text(f"subjectAltName={','.join(names)}\n")
        openssl(
            "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "server.pem", "-days", "1", "-extfile", "names",
        )  # fmt: skip
        return cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
