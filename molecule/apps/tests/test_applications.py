"""Applications that nobody here wrote, as their visitors meet them."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
import ssl
import time

from conftest import issuing_root
from visitor import Form
from websocket import PING, PONG, TEXT, WebSocket

REPORT = {
    "protocol": "1",
    "host": "web1.example.org",
    "arch": "x86_64",
    "kernel": "6.12.1",
    "os": "Debian 13.1",
    "reboot": "False",
    "packages": "'acl' '' '2.3.2' '2' 'amd64' 'deb'\n",
}


def test_a_second_run_changes_nothing(apps):
    assert apps.deploy().changed == {apps.name: 0}
    assert apps.deploy("--check", "--diff").changed == {apps.name: 0}


def test_django_has_its_database_migrated_and_its_static_files_served(apps, someone):
    site = f"https://{apps.site('patchman')}"
    page = someone.get(f"{site}/login/")
    assert page.status == 200 and "Patchman" in page.text, page
    path = re.search(r'href="(/static/[^"]+\.css)"', page.text).group(1)
    style = someone.get(f"{site}{path}")
    assert style.status == 200 and "{" in style.text
    # nginx makes its ETag of the file's time and size.
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', style.headers["ETag"])
    # A page that asks tables which a migration has made.
    assert someone.get(f"{site}/api/erratum/").status == 200
    wrong = Form(page.text).fields | {"username": "nobody", "password": "wrong"}
    answer = someone.post(f"{site}/login/", wrong, Origin=site, Referer=f"{site}/login/")
    assert answer.status == 200 and "Please try again" in answer.text, answer


def test_celery_does_the_job_that_the_site_asked_for(apps, someone):
    site = f"https://{apps.site('patchman')}"
    answer = someone.post(f"{site}/reports/upload/", REPORT)
    assert answer.status == 204, answer
    deadline = time.monotonic() + 60
    while True:
        reports = json.loads(someone.get(f"{site}/api/report/").text)
        reports = reports if isinstance(reports, list) else reports["results"]
        if reports and reports[0]["processed"]:
            break
        assert time.monotonic() < deadline, reports
        time.sleep(0.2)  # between two looks at a page, which does not say when the job is done
    (host,) = json.loads(someone.get(f"{site}/api/host/").text)["results"]
    assert (host["hostname"], host["kernel"]) == ("web1.example.org", "6.12.1")


def test_flask_keeps_what_is_posted(apps, someone):
    site = f"https://{apps.site('money')}"
    form = Form(someone.get(f"{site}/create").text).fields
    form |= {"name": "A trip", "id": f"trip-{secrets.token_hex(4)}", "password": "together", "contact_email": "a@example.org"}
    answer = someone.post(f"{site}/create", form, Referer=f"{site}/create")
    assert answer.status == 302, answer
    page = someone.get(answer.headers["Location"] if "://" in answer.headers["Location"] else site + answer.headers["Location"])
    assert page.status == 200 and "A trip" in page.text, page
    assert apps.host.file("/var/lib/portico/apps/ihatemoney/ihatemoney.db").user == "portico-ihatemoney"


def test_starlette_speaks_over_a_websocket(apps):
    visitor = WebSocket(apps.address, str(issuing_root()), apps.site("notebook"), "/ws?session_id=s_portic")
    assert (visitor.status, visitor.is_accepted) == (101, True), visitor.headers
    visitor.wait_for(TEXT, b"kernel-ready")
    assert b"The square of 12 is <strong>144" in visitor.wait_for(TEXT, b"The square of")
    visitor.send(PING, b"are you there")
    visitor.wait_for(PONG, b"are you there")
    visitor.close()


def test_no_other_protocol_is_led_on_to(apps, someone):
    """Inside of h2c, requests would pass nginx that it never sees."""
    for headers in ({}, {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}, {"Connection": "close", "Upgrade": "websocket, h2c"}):
        told = json.loads(someone.get(f"https://{apps.site('probe')}/", **headers).text)
        assert (told["upgrade"], told["connection"]) == (None, None), told


def test_a_stream_arrives_as_it_is_made(apps, someone):
    """The second line is not made before the first one has been read here."""
    name = apps.site("probe")
    connection = http.client.HTTPConnection(name)
    connection.sock = ssl.create_default_context(cafile=issuing_root()).wrap_socket(socket.create_connection((apps.address, 443), 15), server_hostname=name)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    assert answer.readline() == b"first\n"
    assert "goes on" in someone.get(f"https://{name}/go").text
    assert answer.readline() == b"second\n"
    connection.close()
