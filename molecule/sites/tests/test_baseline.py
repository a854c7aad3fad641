"""What is taken over of dev-sec's baseline for nginx (docs/hardening.md), asked of the nginx that runs. The numbers are those of its controls."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl

import pytest

HALF_A_YEAR = 15_768_000
ROTATES_TICKET_KEYS = (1, 23, 2)


def test_what_the_baseline_asks_for_is_so(host, ask, visitor, inside, name, address):
    site = f"main.{name}.example.test"

    # 01 and 04: one master; the others are its children, nobody's root, and without a privilege left. A worker for each core.
    running = re.findall(r"^ *(\d+) +(\d+) +(\S+) +nginx: (.*\S) *$", host.check_output("ps -eo pid=,ppid=,user:32=,args="), re.MULTILINE)
    (master,) = [pid for pid, _parent, _user, what in running if what.startswith("master process")]
    assert {(parent, user) for pid, parent, user, _what in running if pid != master} == {(master, "www-data")}, running
    workers = [pid for pid, _parent, _user, what in running if what == "worker process"]
    assert len(workers) == int(host.check_output("getconf _NPROCESSORS_ONLN")), running
    for pid in workers:
        assert re.findall(r"^Cap(?:Prm|Eff):\s+(\w+)$", host.file(f"/proc/{pid}/status").content_string, re.MULTILINE) == ["0" * 16] * 2
        assert re.search(r"^Max open files +16384 +16384 ", host.file(f"/proc/{pid}/limits").content_string, re.MULTILINE)

    # 02: root's alone to write, and read by root and nginx. Nobody else comes as far as the folder.
    listed = host.check_output("find -L /etc/nginx/nginx.conf /etc/nginx/portico/ ! -type l -printf '%m %u %g %y %p\n'").splitlines()
    found = {path: (int(mode, 8), user, group, kind) for mode, user, group, kind, path in (line.split(" ", 4) for line in listed)}
    assert {"/etc/nginx/nginx.conf", "/etc/nginx/portico/sites/main.conf", "/etc/nginx/portico/passwords/main/staff", "/etc/nginx/portico/manifest.json"} <= found.keys()
    assert "/etc/nginx/portico/certificates/all/privkey.pem" in found
    assert {path: owned for path, owned in found.items() if owned[1] != "root" or owned[0] & 0o022} == {}
    ours = {path: owned for path, owned in found.items() if owned[3] == "f" and (not path.startswith("/etc/nginx/portico/certificates/") or "privkey" in path)}
    assert {path: owned for path, owned in ours.items() if owned[0] & 0o007} == {}
    assert found["/etc/nginx/portico/"][:3] == (0o750, "root", "www-data")
    refused = host.run("setpriv --reuid nobody --regid nogroup --clear-groups cat /etc/nginx/portico/sites/main.conf")
    assert refused.rc != 0 and "Permission denied" in refused.stderr

    # 03: the package's site is off, and nobody else answers in its place.
    assert "default" not in host.file("/etc/nginx/sites-enabled").listdir()
    with pytest.raises(ConnectionError):
        visitor.get(f"http://{address}/")

    # 05, 08, 10 and 13: on what is there, on what is not, and where a backend is missing.
    for path, status in (("/", 200), ("/nothing", 404), ("/nobody/", 502)):
        answer = ask("main", path)
        assert (answer.status, answer.headers.get_all("Server")) == (status, ["nginx"]) and "nginx" not in answer.text.lower()
        assert (answer.headers.get_all("X-Frame-Options"), answer.headers.get_all("X-Content-Type-Options")) == (["SAMEORIGIN"], ["nosniff"])
        (promise,) = answer.headers.get_all("Strict-Transport-Security")
        assert int(re.match(r"max-age=(\d+)", promise)[1]) >= HALF_A_YEAR

    # 05 and 06: a header that is too large has nginx's own page, which says no version either.
    refused = ask("main", "/", X_Long="a" * 9000)
    assert (refused.status, refused.headers["Server"]) == (400, "nginx") and "<center>nginx</center>" in refused.text
    host.check_output("truncate --size 15M /srv/taken && truncate --size 17M /srv/refused")
    for file, status in (("taken", 200), ("refused", 413)):
        assert inside("main", "/backend/", "--http1.1", "--data-binary", f"@/srv/{file}")[0] == status

    # 12: what of it does not contradict Mozilla's guideline. A cipher that this OpenSSL would take, and a key that would never change.
    def handshake(*words):
        return host.run("openssl s_client -connect 127.0.0.1:443 -tls1_2 -servername %s " + "%s " * len(words) + "</dev/null 2>&1", site, *words).stdout

    taken = handshake("-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in taken
    assert "Cipher is (NONE)" in handshake("-cipher", "ECDHE-ECDSA-AES128-SHA")
    version = tuple(map(int, re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", host.run("nginx -v").stderr).groups()))
    assert ("TLS session ticket:" in taken) == (version >= ROTATES_TICKET_KEYS)


def test_who_never_ends_the_head_of_a_request_is_cut_off(address, name):
    """17: within a minute without our word. Who has ended it may take his time with what he posts."""

    def begun(site, asked):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = context.wrap_socket(socket.create_connection((address, 443), timeout=30), server_hostname=f"{site}.{name}.example.test")
        connection.sendall(asked.replace("HOST", f"{site}.{name}.example.test").encode())
        return connection

    with begun("main", "POST /backend/ HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Length: 2\r\n\r\na") as slow:
        # Waited for no longer than half of the minute that nginx has by itself.
        with begun("main", "GET / HTTP/1.1\r\nHost: HOST\r\nX-Endless: ") as endless, contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            assert endless.recv(65536) == b""
        slow.sendall(b"b")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
