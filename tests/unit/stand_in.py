"""What stands in for nginx in the tests of what is served: a server that speaks TLS for names, with certificates read when it is told."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

RSA_KEY = rsa.generate_private_key(65537, 2048)


def issue(folder, names=("shop.test",), days=90, age=1, key=None):
    """Put a certificate that was issued some days ago, and its key, into a folder, and return its serial number as openssl says it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Testers")])
    begin = datetime.now(timezone.utc) - timedelta(days=age)
    builder = x509.CertificateBuilder(subject_name=x509.Name([]), issuer_name=issuer, public_key=key.public_key(), serial_number=x509.random_serial_number())
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=days))
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True).sign(key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "privkey.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    serial = f"{certificate.serial_number:X}"
    return serial.zfill(len(serial) + len(serial) % 2)


class StandIn:
    """Serves folders, each by the names that it is for, and nothing else."""

    def __init__(self, oldest=ssl.TLSVersion.TLSv1_2):
        self.oldest = oldest
        self.contexts = {}
        stand_in = self

        class Visit(socketserver.BaseRequestHandler):
            def handle(self):
                # Who is refused, or only looks at the certificate, ends the conversation in the middle of it.
                with contextlib.suppress(OSError), stand_in.doorman.wrap_socket(self.request, server_side=True) as tls:
                    tls.recv(1)

        self.doorman = self._context()
        self.doorman.sni_callback = self._choose
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Visit)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def read(self, folders):
        """Read what is on the disk now.

        :param folders: name, or C(*.) and what is below, to the folders of its certificates.
        """
        contexts = {}
        for name, each in folders.items():
            contexts[name] = self._context()
            for folder in each:
                contexts[name].load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
        self.contexts = contexts

    def _context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.oldest
        return context

    def _choose(self, tls, name, _context):
        found = self.contexts.get(name) or self.contexts.get(f"*.{name.partition('.')[2]}")
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        tls.context = found
        return None

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
