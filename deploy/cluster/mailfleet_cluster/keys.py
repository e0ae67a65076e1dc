"""Keys and certificates of a cluster, made by openssl: one CA, P-256 throughout, good for a year."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_cluster.commands import run

if TYPE_CHECKING:
    from pathlib import Path

_DAYS = "365"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Make the CA and the key that signs service accounts' tokens."""
        folder.mkdir(mode=0o700, parents=True)
        self.folder = folder
        self.certificate, self._key = folder / "ca.crt", folder / "ca.key"
        self.service_accounts = folder / "service-accounts.key"
        # Without basicConstraints and keyUsage, Python 3.13 refuses the CA (VERIFY_X509_STRICT).
        run(
            *("openssl", "req", "-x509", *_NEW_KEY, "-subj", "/CN=mailfleet-cluster", "-days", _DAYS),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", self._key, "-out", self.certificate),
        )
        # The API server reads an EC key only in its own format (SEC 1), not in PKCS #8.
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.service_accounts)

    def server(self, name: str, addresses: list[str], names: list[str]) -> tuple[Path, Path]:
        """Certificate and key of a server."""
        alternatives = [*(f"DNS:{n}" for n in names), *(f"IP:{a}" for a in addresses)]
        return self._issue(name, f"/CN={name}", f"serverAuth\nsubjectAltName={','.join(alternatives)}")

    def client(self, name: str, *, user: str, group: str | None = None) -> tuple[Path, Path]:
        """Certificate and key of a user; `group` as RBAC knows it."""
        return self._issue(name, f"/O={group}/CN={user}" if group else f"/CN={user}", "clientAuth")

    def _issue(self, name: str, subject: str, usage: str) -> tuple[Path, Path]:
        certificate, key, request = (self.folder / f"{name}.{end}" for end in ("crt", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            f"authorityKeyIdentifier=keyid\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\n", encoding="utf-8"
        )
        run("openssl", "req", *_NEW_KEY, "-subj", subject, "-keyout", key, "-out", request)
        run(
            *("openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", _DAYS, "-extfile", extensions, "-out", certificate),
        )
        return certificate, key
