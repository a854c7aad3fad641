"""What stands in for nginx in unit tests: a real TLS server on loopback, and certificates made by openssl."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

KINDS = {"ecdsa": ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), "rsa": ("rsa:2048",)}


def make_certificate(folder, domains=("a.example",), kind="ecdsa", days=90, common_name="test"):
    """Make a self-signed certificate and its key, as nginx reads them from a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    names = ",".join(f"DNS:{each}" for each in domains)
    command = ["openssl", "req", "-x509", "-newkey", *KINDS[kind], "-nodes", "-days", str(days), "-subj", f"/CN={common_name}", "-addext", f"subjectAltName={names}"]
    subprocess.run([*command, "-keyout", f"{folder}/privkey.pem", "-out", f"{folder}/fullchain.pem"], check=True, capture_output=True)
    return Path(folder)


class TlsServer:
    """A server with a certificate, or a pair, for each name. Like nginx it reads the files when it is told to, and not before."""

    def __init__(self, oldest=ssl.TLSVersion.TLSv1_2):
        self.oldest = oldest
        self.serves: dict[str, tuple[Path, ...]] = {}
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.asked: list[str | None] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._answer)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        # Closing alone would leave the thread in its accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def reload(self):
        self.contexts = {name: self._context(folders) for name, folders in self.serves.items()}

    def _context(self, folders=()):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.oldest
        for folder in folders:
            context.load_cert_chain(f"{folder}/fullchain.pem", f"{folder}/privkey.pem")
        return context

    def _answer(self):
        first = self._context()
        first.sni_callback = self._choose
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            # A visitor that is gone, or refused: its own end says so.
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5)
                first.wrap_socket(connection, server_side=True).close()

    def _choose(self, connection, name, _context):
        self.asked.append(name)
        wildcard = "*." + (name or "").partition(".")[2]
        found = self.contexts.get(name or "") or self.contexts.get(wildcard)
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
        return None
