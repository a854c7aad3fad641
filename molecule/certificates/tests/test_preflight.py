"""What a host says of each mistake that it can see itself. The CA is asked for nothing, so that nobody's name is stopped."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from servers import site

# Somebody else's web server, where a name leads by mistake.
ELSEWHERE = """\
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        host = self.headers["Host"]
        loops = host.startswith("loop.")
        self.send_response(302 if loops else 200)
        if loops:
            self.send_header("Location", f"http://{host}{self.path}")
        self.end_headers()
        self.wfile.write(b"Nothing of the kind is here")

server = http.server.ThreadingHTTPServer(("", 80), Handler)
with open("/run/elsewhere.pid", "w") as file:
    file.write(str(os.getpid()))
server.serve_forever()
"""
CA = {"resource": "directory", "do": "merge", "json": {"meta": {"caaIdentities": ["ca.example"]}}}


@pytest.fixture(scope="module")
def resolving(servers, acme):
    """Servers that ask the CA's DNS, and so believe the same of every name."""
    address = acme.address
    # Whatever has to be fetched for it is fetched before: there is no way to a package from that DNS.
    run = servers.deploy()
    assert run.ok, run.output

    def believe(server):
        # Written, not replaced: the engine has mounted these very files.
        server.run(
            f"cp /etc/resolv.conf /root/resolv.conf; echo 'nameserver {address}' >/etc/resolv.conf; cp /etc/hosts /root/hosts;"
            f"grep -v example.test /root/hosts >/etc/hosts; echo '{address} acme' >>/etc/hosts"
        )

    servers.at_once(believe)
    yield servers
    servers.at_once(lambda server: server.run("cat /root/resolv.conf >/etc/resolv.conf; cat /root/hosts >/etc/hosts"))


@pytest.fixture
def elsewhere(acme):
    subprocess.run(["docker", "exec", "--detach", acme.container, "python3", "-c", ELSEWHERE], check=True)
    acme.run("timeout", "10", "sh", "-c", "until [ -s /run/elsewhere.pid ]; do sleep 0.1; done")
    yield acme.address
    acme.run("sh", "-c", "kill $(cat /run/elsewhere.pid); rm /run/elsewhere.pid")


def lead(servers, acme, label, address=None):
    """Let a name lead to an address, or to its own server."""
    for server in servers:
        acme.lead(server.site(label), address or server.address)


def forbid(servers, acme, label):
    for server in servers:
        record = {"host": server.site(label), "policies": [{"tag": "issue", "value": "another-ca.example"}]}
        acme.run("curl", "--silent", "--show-error", "--fail", "--data", json.dumps(record), "http://localhost:8055/add-caa")


def told(run, server, label):
    """What the play said of a server's site, in one line of its failure."""
    return "\n".join(re.findall(rf'{label}: {re.escape(server.site(label))}[^\n]*', run.output.replace("\\n", "\n")))


def refused(servers, acme, *labels):
    """Deploy sites whose names no CA could prove, and return what was said of each: (server, label) to words."""
    with acme.fault(**CA), acme.watch() as seen:
        run = servers.deploy(nginx_sites=[site(label) for label in labels])
    assert run.failed == {server.name for server in servers}, run.output
    assert seen.of("newOrder") == []
    return {(server, label): told(run, server, label) for server in servers for label in labels}


def test_a_name_that_leads_nowhere_to_a_closed_port_or_to_where_the_ca_may_not_issue(resolving, acme, each):
    for server in resolving:
        acme.lead(server.site("nowhere"))
    lead(resolving, acme, "closed", acme.address)
    lead(resolving, acme, "forbidden")
    forbid(resolving, acme, "forbidden")
    said = refused(resolving, acme, "nowhere", "closed", "forbidden")

    def judge(server):
        assert re.search(r"nowhere\.\S+ (does not exist|has no address)", said[server, "nowhere"]), said
        assert f"leads to {acme.address}, which is not an address of this host: port 80 is closed there (connection refused)" in said[server, "closed"], said
        words = said[server, "forbidden"]
        assert 'CAA 0 issue "another-ca.example", and so forbids it. Add' in words and 'CAA 0 issue "ca.example"' in words, said

    each(judge)


def test_a_name_that_leads_to_somebody_else(resolving, acme, elsewhere, each):
    lead(resolving, acme, "other", elsewhere)
    lead(resolving, acme, "loop", elsewhere)
    said = refused(resolving, acme, "other", "loop")

    def judge(server):
        for label, why in ("other", "answers"), ("loop", "redirect"):
            words = said[server, label]
            assert f"leads to {elsewhere}, which is not an address of this host: " in words and why in words, said

    each(judge)


def test_what_is_mended_is_obtained(resolving, acme):
    lead(resolving, acme, "other")
    lead(resolving, acme, "nowhere")
    run = resolving.deploy(nginx_sites=[site("other"), site("nowhere")])
    assert run.ok, run.output
    with resolving.load("other", "nowhere"):
        pass


def test_a_host_that_cannot_reach_itself_does_without(resolving, acme, each):
    """Its own names lead elsewhere for it alone, as behind many a router."""
    lead(resolving, acme, "inside")
    resolving.at_once(lambda server: server.run(f"echo '{acme.address} {server.site('inside')}' >>/etc/hosts"))
    said = refused(resolving, acme, "inside")

    def judge(server):
        assert "which is not an address of this host" in said[server, "inside"], said

    each(judge)
    run = resolving.deploy(nginx_sites=[site("inside")], certbot_preflight=False)
    assert run.ok, run.output
    with resolving.load("inside"):
        pass
