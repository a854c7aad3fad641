"""Scopes, history, drift and text of one's own, as visitors and administrators see them."""

from __future__ import annotations

import concurrent.futures
import json
import re
import time

import hostile
import pytest
from load import Load

LIVE = "/var/lib/portico/nginx/live"


def moved(name, to, **keys):
    """A site that tells by its redirect what was published."""
    return {"name": name, "server_names": [f"{name}.example.test"], "tls": False, "redirect": f"https://{to}.example.test/", **keys}


@pytest.fixture(scope="module")
def run(play, name):
    """Run a play against this server; it has to end as the test says."""

    def run(playbook, *flags, ok=True, **variables):
        done = play(playbook, "--limit", name, "--extra-vars", json.dumps(variables), *flags)
        assert done.ok == ok, done.output
        return done

    return run


@pytest.fixture(scope="module")
def publish(run):
    def publish(*sites, scope="main", flags=(), **more):
        return run("publish.yml", *flags, nginx_sites=sites, nginx_scope=scope, **more)

    return publish


@pytest.fixture
def leads(visitor):
    """Say where a site leads: the first label of its redirect's target, or the status."""

    def leads(name):
        try:
            answer = visitor.get(f"http://{name}.example.test/")
        except ConnectionError:
            return "nowhere"
        return answer.headers["Location"].split("//")[1].split(".")[0] if answer.status == 301 else answer.status

    return leads


@pytest.fixture(autouse=True)
def clean(host, publish):
    """Each test leaves a server that nothing is published to."""
    yield
    live = host.file(f"{LIVE}/manifest.json")
    for scope in json.loads(live.content_string)["scopes"] if live.exists else []:
        publish(scope=scope, nginx_state="absent")


def test_scopes_leave_each_other_and_strangers_alone(host, publish, run, leads):
    publish()
    stranger = "server { listen 80; server_name stranger.example.test; return 301 https://stranger.example.test; }"
    host.check_output("echo %s >/etc/nginx/conf.d/stranger.conf", stranger)
    publish(moved("a", "one"))
    publish(moved("b", "two"), scope="other")
    publish(moved("a", "three"))
    assert (leads("a"), leads("b"), leads("stranger")) == ("three", "two", "stranger")

    run("roll_back.yml")
    assert (leads("a"), leads("b"), leads("stranger")) == ("one", "two", "stranger")
    publish(moved("b", "four"), scope="other")
    run("roll_back.yml", nginx_scope="other")
    assert (leads("a"), leads("b"), leads("stranger")) == ("one", "two", "stranger")

    publish(scope="other", nginx_state="absent")
    assert (leads("a"), leads("b"), leads("stranger")) == ("one", "nowhere", "stranger")
    publish(nginx_state="absent")
    assert leads("stranger") == "stranger"
    assert not host.file("/var/lib/portico").exists
    host.check_output("rm /etc/nginx/conf.d/stranger.conf && systemctl reload nginx")


def test_scopes_cannot_have_the_same_name_or_setting(publish, run):
    publish(moved("a", "one"))
    same_name = run("publish.yml", ok=False, nginx_scope="other", nginx_sites=[moved("a", "two")])
    assert r"is a site of the scope \"main\" on this host" in same_name.output
    same_host = run("publish.yml", ok=False, nginx_scope="other", nginx_sites=[moved("b", "two", server_names=["a.example.test"])])
    assert r"belongs to the site \"a\" of the scope \"main\" on this host" in same_host.output
    publish(moved("a", "one"), nginx_extra_config="client_max_body_size 3m;")
    setting = run("publish.yml", ok=False, nginx_scope="other", nginx_sites=[moved("b", "two")], nginx_extra_config="gzip off;")
    assert r"nginx_extra_config: what nginx has once for the whole host is set by the scope \"main\" already" in setting.output


def test_going_back_reaches_any_kept_generation(host, name, publish, run, leads):
    for target in ("one", "two", "three"):
        publish(moved("a", target))
    dry = run("roll_back.yml", "--check", "--diff", nginx_generation=1)
    assert "-        return 301 https://three.example.test/" in dry.output
    assert "+        return 301 https://one.example.test/" in dry.output
    assert leads("a") == "three"
    back = run("roll_back.yml", nginx_generation=1)
    assert leads("a") == "one"
    assert r"scope \"main\" went back to generation 1" in back.output
    assert run("roll_back.yml", nginx_generation=1).changed == {name: 0}
    assert "Generation 99 is not kept" in run("roll_back.yml", ok=False, nginx_generation=99).output
    for number in range(6):
        publish(moved("a", f"site{number}"))
    assert len(host.file("/var/lib/portico/nginx/generations").listdir()) == 5


def test_a_run_ends_when_nobody_meets_the_generation_before(host, publish, leads):
    """A worker of it that cannot hear that it is to leave, because the host is busy, goes on accepting visitors."""
    publish(moved("a", "one"))
    live = host.check_output("readlink %s", LIVE)
    worker = host.check_output("pgrep --oldest --full '^nginx: worker process$'")
    host.check_output("kill -STOP %s", worker)
    try:
        with concurrent.futures.ThreadPoolExecutor() as aside:
            run = aside.submit(publish, moved("a", "two"))
            host.check_output("timeout 30 sh -c 'until [ \"$(readlink %s)\" != \"%s\" ]; do sleep 0.1; done'" % (LIVE, live))
            with pytest.raises(TimeoutError):
                run.result(timeout=3)  # long after all other workers have left
            host.check_output("kill -CONT %s", worker)
            run.result()
    finally:
        host.run("kill -CONT %s", worker)
    assert leads("a") == "two"


@pytest.fixture
def many_logs(host):
    """Text of a site with more logs than a process may have files open by itself (1024), as a thousand sites have with one each."""
    logs = "/var/log/nginx/many-"
    yield "".join(f"location /{number}/ {{\n    access_log {logs}{number}.log;\n}}\n" for number in range(1100))
    host.check_output("find /var/log/nginx -name 'many-*' -delete")


@pytest.fixture
def login(host):
    """A Python that may have as many files open as what a login starts. Docker lets its own have more."""
    path = "/usr/local/bin/python-of-a-login"
    host.check_output("printf '#!/bin/sh\nulimit -S -n 1024\nexec /usr/bin/python3 \"$@\"\n' >%s && chmod +x %s", path, path)
    yield path
    host.check_output("rm %s", path)


def test_there_may_be_more_logs_than_files_that_a_login_lets_open(host, publish, leads, many_logs, login):
    """Also twice: while nginx reloads it has those of before open too. And from a login, whose limit the nginx that tests has."""
    publish(moved("a", "one"))
    assert leads("a") == "one"
    for target in ("two", "three"):
        publish(moved("a", target, extra_config=many_logs), ansible_python_interpreter=login)
        assert leads("a") == target
    host.check_output("systemctl restart nginx")
    assert leads("a") == "three"


def test_an_edited_file_is_shown_and_put_right(host, name, publish, leads):
    publish(moved("a", "one"))
    host.check_output(f"sed -i s/one.example/edited.example/ {LIVE}/sites/a.conf && echo '# mine' >{LIVE}/sites/mine.conf")
    dry = publish(moved("a", "one"), flags=("--check", "--diff"))
    assert dry.changed == {name: 1}
    assert "-        return 301 https://edited.example.test/" in dry.output
    assert "+        return 301 https://one.example.test/" in dry.output
    publish(moved("a", "one"))
    assert leads("a") == "one"
    assert host.file(f"{LIVE}/sites/mine.conf").content_string == "# mine\n"
    assert publish(moved("a", "one")).changed == {name: 0}


def test_a_generation_that_others_could_read_stays_until_the_next_is_published(host, name, publish, leads):
    """As those of an older Portico could be."""

    def can_read(path):
        return host.run("setpriv --reuid nobody --regid nogroup --clear-groups cat %s", path).rc == 0

    publish(moved("a", "one"))
    host.check_output(f"chmod -R a+rX {LIVE}/")
    assert can_read(f"{LIVE}/sites/a.conf")
    assert publish(moved("a", "one")).changed == {name: 0} and can_read(f"{LIVE}/sites/a.conf")
    publish(moved("a", "two"))
    assert not any(map(can_read, (f"{LIVE}/sites/a.conf", f"{LIVE}/nginx.conf", f"{LIVE}/manifest.json"))) and leads("a") == "two"


def test_a_bad_value_is_red_in_every_run_and_never_on_disk(host, publish, run, leads):
    publish(moved("a", "one"))
    live = host.file(LIVE).linked_to
    banana = {"nginx_sites": [moved("a", "two", extra_config="client_max_body_size banana;")]}
    for flags in (["--check"], [], []):
        red = run("publish.yml", *flags, ok=False, **banana)
        assert r"\"client_max_body_size\" directive invalid value in sites/a.conf:" in red.output
        assert "client_max_body_size banana;" in red.output
    assert host.file(LIVE).linked_to == live
    assert host.run("grep -r banana /etc/nginx /var/lib/portico").rc == 1
    host.check_output("systemctl restart nginx")
    assert leads("a") == "one"


def test_text_and_templates_of_ones_own_are_served(publish, visitor):
    extra = moved("a", "one", extra_config="location = /extra { return 200 'a; }\nb'; }")
    own = {"name": "own", "server_names": ["own.example.test"], "tls": False, "template": "own.conf.j2"}
    publish(extra, own, nginx_extra_config="client_max_body_size 3m; server_tokens on;")
    answer = visitor.get("http://a.example.test/extra")
    assert (answer.status, answer.text) == (200, "a; }\nb")
    assert answer.headers["Server"].startswith("nginx/")
    assert visitor.get("http://own.example.test/").text == "HELLO; } FROM THE PLAY"


def test_hostile_values_reach_a_visitor_to_the_byte(publish, visitor):
    """Two hundred through a real nginx, half as what it says, half as where it leads."""
    # Control characters and "$" are refused; what looks like Jinja, Ansible would take for its own.
    unseen = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff$]|\{[{%#]")
    hostiles = [value for _key, value in hostile.values(1, 2000, ["redirect"]) if not unseen.search(value) and len(value) < 1000]
    words, paths = hostiles[:100], [percent_encoded(value) for value in hostiles[100:200]]
    assert len(paths) == 100
    quoted = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words]
    says = [moved(f"says{at}", "x", extra_config=f'location = /word {{ return 200 "{word}"; }}') for at, word in enumerate(quoted)]
    goes = [moved(f"goes{at}", "x", redirect=f"https://example.test/{path}") for at, path in enumerate(paths)]
    publish(*says, *goes)
    for at, word in enumerate(words):
        assert visitor.get(f"http://says{at}.example.test/word").text == word
    for at, path in enumerate(paths):
        assert visitor.get(f"http://goes{at}.example.test/").headers["Location"] == f"https://example.test/{path}"


def test_a_connection_without_pipelining_works(publish, leads, monkeypatch):
    monkeypatch.setenv("ANSIBLE_PIPELINING", "0")
    assert "PUT " in publish(moved("a", "one"), flags=("-vvv",)).output
    assert leads("a") == "one"


def test_a_host_of_an_older_portico_goes_on(host, name, address, publish, leads):
    """Before there were scopes there was no manifest, no marker, and one file for all upstreams."""
    publish(moved("a", "one"), moved("gone", "one"))
    host.check_output(f"cd {LIVE} && rm manifest.json && printf '# nothing\\\\n' | tee marker.conf >apps.conf && systemctl reload nginx")
    with Load(address, ["http://a.example.test/"]) as load:
        publish(moved("a", "one"))
    assert not load.report.lost, load.report
    assert (leads("a"), leads("gone")) == ("one", "nowhere")
    assert not host.file(f"{LIVE}/apps.conf").exists
    assert publish(moved("a", "one")).changed == {name: 0}


BACKEND = r"""
import os, socketserver
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nback")
os.umask(0)
socketserver.UnixStreamServer("/tmp/backend.sock", Answer).serve_forever()
"""
BEFORE_A_START = "nginx is not in its sandbox before it is started again: systemctl restart nginx"


def is_sandboxed(host):
    return host.check_output("readlink /proc/$(cat /run/nginx.pid)/ns/mnt") != host.check_output("readlink /proc/1/ns/mnt")


def may_write(host, folder):
    """Whether root could, as nginx's master."""
    return host.run("nsenter --mount=/proc/$(cat /run/nginx.pid)/ns/mnt test -w %s", folder).rc == 0


def logged(host, path):
    host.check_output("timeout 20 sh -c 'until grep -q \"GET /\" %s; do sleep 0.1; done' && : >%s" % (path, path))
    return True


@pytest.fixture
def folders(host, publish):
    """One of them is a link, and another has a disk below it."""
    host.check_output("mkdir -p /srv/real /srv/theirs/disk /srv/other && ln -s /srv/real /srv/logs && mount -t tmpfs none /srv/theirs/disk && echo on disk >/srv/theirs/disk/page")
    yield
    publish(nginx_state="absent")
    host.check_output("umount /srv/theirs/disk && rm -rf /srv/logs /srv/real /srv/theirs /srv/other /etc/nginx/conf.d/theirs.conf && systemctl restart nginx")


def test_a_sandboxed_nginx_writes_where_its_configuration_says(folders, host, publish, visitor, leads):
    """One that runs is let write somewhere else too, without being started anew."""
    disk = {"name": "disk", "server_names": ["disk.example.test"], "tls": False, "root": "/srv/theirs/disk"}
    publish(moved("a", "one"), disk)
    host.check_output("systemctl restart nginx")
    assert is_sandboxed(host)
    started = host.check_output("cat /run/nginx.pid")
    assert [may_write(host, folder) for folder in ("/run", "/var/log/nginx", "/srv/real", "/etc/nginx", "/usr", "/var/lib/portico")] == [True, True, False, False, False, False]
    logging = moved("a", "two", extra_config="access_log /srv/logs/a.log;")
    publish(logging, disk)
    assert leads("a") == "two" and logged(host, "/srv/logs/a.log")
    # Whoever edits files by hand is told by nginx, and let by the next play.
    host.check_output("echo 'server { listen 80; server_name theirs.example.test; access_log /srv/theirs/access.log; return 301 https://theirs.example.test; }' >/etc/nginx/conf.d/theirs.conf && nginx -t")
    publish(logging, disk)
    host.check_output("systemctl reload nginx")
    deadline = time.monotonic() + 20
    while leads("theirs") != "theirs":
        assert time.monotonic() < deadline
        time.sleep(0.1)  # nginx does not say when its workers are the new ones
    assert logged(host, "/srv/theirs/access.log") and visitor.get("http://disk.example.test/page").text == "on disk\n"
    assert host.check_output("cat /run/nginx.pid") == started and not may_write(host, "/srv/other")
    host.check_output("systemctl restart nginx")
    assert is_sandboxed(host) and not may_write(host, "/srv/other") and visitor.get("http://disk.example.test/page").text == "on disk\n"
    assert (leads("a"), leads("theirs")) == ("two", "theirs") and logged(host, "/srv/logs/a.log") and logged(host, "/srv/theirs/access.log")
    assert publish(logging, disk).changed == {host.backend.name: 0}
    publish(nginx_state="absent")
    assert leads("theirs") == "theirs"


def test_what_is_in_tmp_is_not_hidden_from_nginx_in_silence(host, publish, run, visitor, leads):
    publish(moved("a", "one"))
    host.check_output("systemd-run --quiet --unit=backend python3 -c %s", BACKEND)
    try:
        site = {"name": "back", "server_names": ["back.example.test"], "tls": False, "proxy": "http://unix:/tmp/backend.sock"}
        for flags in (["--check"], []):
            told = run("publish.yml", *flags, ok=False, nginx_sites=[moved("a", "two"), site]).output
            assert "something in /tmp or /var/tmp" in " ".join(told.split()) and leads("a") == "one"
        told = run("publish.yml", ok=False, nginx_sandbox=False, nginx_sites=[moved("a", "two"), site]).output
        assert "something in /tmp or /var/tmp" in " ".join(told.split()), "what runs is in its sandbox still"
        run("publish.yml", ok=False, nginx_sites=[moved("a", "two"), site])
        host.check_output("systemctl restart nginx")
        publish(moved("a", "two"), site)
        assert visitor.get("http://back.example.test/").text == "back" and leads("a") == "two"
        assert is_sandboxed(host) and not may_write(host, "/tmp")
        publish(moved("a", "two"))
    finally:
        host.check_output("systemctl stop backend; rm -f /tmp/backend.sock")


def test_a_host_can_be_without_the_sandbox(host, name, publish, leads):
    publish(moved("a", "one"), nginx_sandbox=False)
    assert publish(moved("a", "one"), nginx_sandbox=False).changed == {name: 0}
    host.check_output("systemctl restart nginx")
    assert not is_sandboxed(host) and leads("a") == "one"
    assert BEFORE_A_START in " ".join(publish(moved("a", "one")).output.split())
    assert not is_sandboxed(host), "who has visitors is not started anew"
    host.check_output("systemctl restart nginx")
    assert is_sandboxed(host) and leads("a") == "one"


def test_a_host_that_cannot_have_a_sandbox_serves_all_the_same(folders, host, name, publish, leads):
    script = "echo 'Failed to set up mount namespacing' >&2; exit 226"
    host.check_output("printf '#!/bin/sh\\n%%s\\n' %s >/usr/local/bin/systemd-run && chmod 755 /usr/local/bin/systemd-run", script)
    try:
        told = publish(moved("a", "one"))
        assert "nginx's unit has no sandbox on this host: Failed to set up mount namespacing. nginx_sandbox: false" in " ".join(told.output.split())
        assert leads("a") == "one" and publish(moved("a", "one")).changed == {name: 0}
        host.check_output("systemctl restart nginx")
        assert leads("a") == "one" and not is_sandboxed(host)
    finally:
        host.check_output("rm /usr/local/bin/systemd-run")
    assert BEFORE_A_START in " ".join(publish(moved("a", "one", extra_config="access_log /srv/logs/a.log;")).output.split())
    host.check_output("systemctl restart nginx")
    assert is_sandboxed(host) and leads("a") == "one" and logged(host, "/srv/logs/a.log")


def percent_encoded(word):
    """Percent-encode what no URL has; everything else that looks dangerous stays."""
    return "".join(sign if sign.isascii() and sign.isprintable() and sign not in ' "\\<>^`{|}' else "".join(f"%{byte:02X}" for byte in sign.encode()) for sign in word)
