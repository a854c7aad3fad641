"""What the CA would refuse is told in plain words before it is asked: each mistake is made for real."""

from __future__ import annotations

import contextlib

import pytest
from acme_scene import together, wait_until

CLOSED = {
    "nowhere": "does not resolve",
    "closed": "refused",
    "forbidden": "CAA",
}
ANSWERED = {
    "strange": "Something else",
    "loop": "loop",
}
ELSEWHERE = """\
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        loops = self.headers["Host"].startswith("loop.")
        self.send_response(302 if loops else 200)
        if loops:
            self.send_header("Location", f"http://{self.headers['Host']}{self.path}")
        self.end_headers()
        self.wfile.write(b"Something else")
http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""


@contextlib.contextmanager
def resolver(scene):
    """While it lasts, the hosts ask the DNS server of the tests. It does not know the CA's own name."""
    address = scene.acme.address
    together(scene.hosts, lambda host: host.ask("cp /etc/resolv.conf /root/resolv.conf && cp /etc/hosts /root/hosts"))
    leads = {"closed": address, "strange": address, "loop": address}
    try:
        for host in scene.hosts:
            lines = [f"{leads.get(label, host.address)} {label}.{host.name}.example.test" for label in (*CLOSED, *ANSWERED) if label != "nowhere"]
            host.ask("cat >>/etc/hosts", "\n".join([f"{address} acme", *lines, ""]))
            host.ask(f"echo nameserver {address} >/etc/resolv.conf")
            scene.acme.forbid(f"forbidden.{host.name}.example.test", "another-ca.example")
        yield
    finally:
        together(scene.hosts, lambda host: host.ask("cat /root/resolv.conf >/etc/resolv.conf && cat /root/hosts >/etc/hosts"))


@contextlib.contextmanager
def elsewhere(scene):
    """While it lasts, there is another web server."""
    scene.acme.ask("cat >/root/elsewhere.py && (nohup python3 /root/elsewhere.py >/dev/null 2>&1 & echo $! >/root/elsewhere.pid)", ELSEWHERE)
    try:
        wait_until(lambda: scene.acme.run("curl --silent http://localhost/").returncode == 0, "the other web server answers")
        yield
    finally:
        scene.acme.ask("kill $(cat /root/elsewhere.pid)")


@pytest.fixture(scope="module")
def refused(scene):
    """All the mistakes, in two runs: those of names where nobody answers, and those of names where somebody else does."""

    def run(labels):
        sites = {label: {"name": label, "server_names": [f"{label}.{{{{ inventory_hostname }}}}.example.test"], "root": "/usr/share/nginx/html"} for label in labels}
        return scene.deploy(sites, nginx_scope="refused", certbot_scope="refused", overrides=[])

    identities = {"resource": "directory", "merge": {"meta": {"caaIdentities": ["acme.example"]}}}
    with resolver(scene), scene.acme.fault(identities):
        steps = [run(CLOSED)]
        with elsewhere(scene):
            steps.append(run(ANSWERED))
    yield dict.fromkeys(CLOSED, steps[0]) | dict.fromkeys(ANSWERED, steps[1])
    scene.deploy({}, nginx_scope="refused", certbot_scope="refused", overrides=[])


@pytest.mark.parametrize(("label", "says"), [*CLOSED.items(), *ANSWERED.items()])
def test_what_is_wrong_is_told_in_plain_words(refused, name, label, says):
    step = refused[label]
    assert not step.run.ok, step.run.output
    said = [line for line in step.run.output.splitlines() if f"{label}.{name}.example.test" in line]
    assert any(says in line for line in said), "\n".join(said) or step.run.output


@pytest.mark.parametrize("label", [*CLOSED, *ANSWERED])
def test_it_costs_no_order(refused, name, label):
    assert refused[label].looks[name].orders == []
