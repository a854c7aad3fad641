"""Apps from every kind of source, with environments by pip and by uv. Each is asked at its own socket."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

APP = "import greeting\n\n\ndef application(environ, start_response):\n    start_response('200 OK', [])\n    return [greeting.WORDS.encode()]\n"
TOKEN = "a-token-that-nobody-sees"
WHEEL = "portico_greeting-1.0-py3-none-any.whl"


def wheel(words: str, app: bool = False) -> bytes:
    """A wheel of the package that the apps need, and with it the app, if told so."""
    texts = {
        "greeting.py": f"WORDS = {words!r}\n",
        **({"wsgi.py": APP} if app else {}),
        "portico_greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: portico-greeting\nVersion: 1.0\n",
        "portico_greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*texts, "portico_greeting-1.0.dist-info/RECORD"))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in {**texts, "portico_greeting-1.0.dist-info/RECORD": record}.items():
            # The same bytes again for the same words.
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


def project(words: str) -> dict[str, str | bytes]:
    return {
        "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "shop"\nversion = "1.0"\n[tool.setuptools]\npackage-dir = {"" = "src"}\npy-modules = ["wsgi", "greeting"]\n',
        "src/wsgi.py": APP,
        "src/greeting.py": f"WORDS = {words!r}\n",
    }


def locked(words: str) -> dict[str, str | bytes]:
    made = wheel(words)
    return {
        "pyproject.toml": '[project]\nname = "shop"\nversion = "1.0"\nrequires-python = ">=3.9"\ndependencies = ["portico-greeting"]\n'
        f'[tool.uv.sources]\nportico-greeting = {{ path = "{WHEEL}" }}\n',
        "uv.lock": 'version = 1\nrequires-python = ">=3.9"\n\n'
        f'[[package]]\nname = "portico-greeting"\nversion = "1.0"\nsource = {{ path = "{WHEEL}" }}\n'
        f'wheels = [{{ filename = "{WHEEL}", hash = "sha256:{hashlib.sha256(made).hexdigest()}" }}]\n\n'
        '[[package]]\nname = "shop"\nversion = "1.0"\nsource = { virtual = "." }\ndependencies = [{ name = "portico-greeting" }]\n\n'
        f'[package.metadata]\nrequires-dist = [{{ name = "portico-greeting", path = "{WHEEL}" }}]\n',
        "wsgi.py": APP,
        WHEEL: made,
    }


def plain(words: str) -> dict[str, str | bytes]:
    return {"requirements.txt": "", "greeting.py": f"WORDS = {words!r}\n", "wsgi.py": APP}


class Farm:
    """A server, and apps on it that are named after where they come from."""

    def __init__(self, host: Any, name: str, play: Any, folder: Path) -> None:
        self.host, self.name, self._play, self.folder = host, name, play, folder

    def write(self, name: str, files: dict[str, str | bytes]) -> Path:
        for path, content in files.items():
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.folder / name

    def pack(self, name: str, files: dict[str, str | bytes]) -> Path:
        archive = self.folder / f"{name}.tar.xz"
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(self.write(name, files), arcname=f"{name}-1.0")
        return archive

    def deploy(self, *apps: dict[str, Any], flags: tuple[str, ...] = ()) -> Any:
        given = {"apps_of_test": [{"app": "wsgi:application", "workers": 1, **app} for app in apps]}
        variables = self.folder / "variables.json"
        variables.write_text(json.dumps(given))
        return self._play("sources.yml", "--limit", self.name, "--extra-vars", f"@{variables}", *flags)

    def answer(self, app: str) -> str:
        return self.host.check_output(f"curl --silent --show-error --fail --max-time 10 --unix-socket /srv/portico/{app}/live/app.sock http://localhost/")

    def environment(self, app: str) -> str:
        return self.host.check_output(f"readlink --canonicalize-existing /srv/portico/{app}/live/release/environment")

    def on_host(self, path: str, text: str) -> None:
        self.host.check_output(f"cat > {path} <<'END-OF-FILE'\n{text}\nEND-OF-FILE")


@pytest.fixture(scope="module")
def farm(host: Any, name: str, play: Any, tmp_path_factory: pytest.TempPathFactory) -> Farm:
    return Farm(host, name, play, tmp_path_factory.mktemp("sources"))


def see(farm: Farm, app: dict[str, Any], words: str) -> None:
    """Deploy an app twice, and see that it answers and that the second run changes nothing."""
    run = farm.deploy(app)
    assert run.ok, run.output
    assert farm.answer(app["name"]) == words
    assert farm.deploy(app).changed == {farm.name: 0}


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_project_is_installed(farm, installer):
    folder = farm.write(f"project-{installer}", project("from a project"))
    see(farm, {"name": f"project-{installer}", "source": {"path": str(folder)}, "installer": installer}, "from a project")
    source = f"/srv/portico/project-{installer}/live/release/source/"
    assert farm.host.check_output(f"ls -A {source} {source}src | sort").split() == sorted(["pyproject.toml", "src", "wsgi.py", "greeting.py", f"{source}:", f"{source}src:"])
    module = farm.host.check_output(f"{farm.environment(f'project-{installer}')}/bin/python -c 'import greeting; print(greeting.__file__)'")
    assert module.startswith(farm.environment(f"project-{installer}"))


def test_a_lock_file_is_followed(farm):
    see(farm, {"name": "locked", "source": {"path": str(farm.write("locked", locked("from a lock")))}}, "from a lock")
    compiled = farm.host.check_output(f"find {farm.environment('locked')} -name 'greeting*.pyc'")
    assert compiled


def test_an_archive_is_unpacked(farm):
    archive = farm.pack("archived", plain("from an archive"))
    see(farm, {"name": "archived", "source": {"archive": str(archive)}}, "from an archive")


def test_a_wheel_is_installed(farm):
    (farm.folder / WHEEL).write_bytes(wheel("from a wheel", app=True))
    see(farm, {"name": "wheel", "source": {"archive": str(farm.folder / WHEEL)}}, "from a wheel")
    assert farm.host.check_output("ls -A /srv/portico/wheel/live/release/source") == ""


def test_unchanged_requirements_build_nothing(farm):
    for words in ("one", "two"):
        folder = farm.write("reused", plain(words) | {"requirements.txt": "-r base.txt\n", "base.txt": "# nothing\n"})
        assert farm.deploy({"name": "reused", "source": {"path": str(folder)}}).ok
        assert farm.answer("reused") == words
    assert len(farm.host.check_output("ls /srv/portico/reused/environments").split()) == 1
    farm.write("reused", {"base.txt": "# something else\n"})
    before = farm.environment("reused")
    assert farm.deploy({"name": "reused", "source": {"path": str(folder)}}).ok
    assert farm.environment("reused") != before


def test_an_environment_whose_python_vanished_is_made_anew(farm):
    app = {"name": "vanished", "source": {"path": str(farm.write("vanished", plain("still here")))}}
    assert farm.deploy(app).ok
    before = farm.environment("vanished")
    farm.host.check_output(f"ln -sfn /opt/python-that-is-gone {before}/bin/python")
    run = farm.deploy(app, flags=("--check",))
    assert run.changed[farm.name] > 0, run.output
    assert farm.environment("vanished") == before
    see(farm, app, "still here")
    assert farm.environment("vanished") != before


def test_requirements_with_a_wrong_hash_do_not_go_live(farm):
    folder = farm.write("hashed", plain("x") | {"requirements.txt": f"./{WHEEL} --hash=sha256:{'0' * 64}\n", WHEEL: wheel("tampered")})
    for installer in ("pip", "uv"):
        run = farm.deploy({"name": "hashed", "source": {"path": str(folder)}, "installer": installer})
        assert not run.ok and "installing its requirements" in run.output, run.output
        assert re.search("hash", run.output, re.I)
        assert farm.host.check_output("ls -A /srv/portico/hashed/environments") == ""


REPOSITORY = """\
set -e
rm -rf /srv/git/shop && mkdir -p /srv/git/shop && cd /srv/git/shop
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
git init --quiet --initial-branch main
printf '' > requirements.txt
cat > wsgi.py <<'EOF'
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'from a repository']
EOF
git add . && git commit --quiet -m one && git tag v1
"""


def test_a_tag_of_a_repository_is_deployed(farm):
    app = {"name": "tagged", "source": {"git": "file:///srv/git/shop", "version": "v1"}}
    # The first app that comes from a repository has the role install git.
    if not farm.host.exists("git"):
        assert not farm.deploy(app).ok
    farm.host.check_output(REPOSITORY)
    see(farm, app, "from a repository")


def test_a_deploy_key_is_shown_and_left_nowhere(farm):
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5IGF0IGFsbA==\n-----END OPENSSH PRIVATE KEY-----\n"
    run = farm.deploy({"name": "stranger", "source": {"git": "ssh://git@127.0.0.1:1/shop.git", "version": "v1", "key": key}}, flags=("-vvv",))
    assert not run.ok and "source.version" in run.output, run.output
    assert "bm90IGEga2V5" not in run.output
    assert farm.host.check_output("find /run -maxdepth 1 -name 'portico-*' ! -name portico-nginx") == ""


INDEX = """\
import base64, functools, http.server, ssl
class Guarded(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if base64.b64decode(self.headers.get("Authorization", "")[6:]).decode() == "deploy:TOKEN":
            return super().do_GET()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.send_header("Content-Length", "0")
        self.end_headers()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), functools.partial(Guarded, directory="/srv/index"))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/index.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def index(farm):
    """A private index behind TLS that only the host's own CA vouches for: with the greeting, and gunicorn as the host's index has it."""
    run = farm.deploy({"name": "before", "source": {"path": str(farm.write("before", plain("x")))}, "installer": "pip"})
    assert run.ok, run.output
    python = f"{farm.environment('before')}/bin/python"
    do = farm.host.check_output
    do("rm -rf /srv/index /srv/files && mkdir -p /srv/index/simple/portico-greeting /srv/files")
    do(f"{python} -m pip download --quiet --dest /srv/files gunicorn==27.0.1")
    do("for file in /srv/files/*.whl; do name=$(basename $file | cut -d- -f1 | tr _ -); mkdir -p /srv/index/simple/$name; cp $file /srv/index/simple/$name; done")
    farm.on_host("/srv/wheel.hex", wheel("from a private index", app=True).hex())
    do(f"{python} -c \"open('/srv/index/simple/portico-greeting/{WHEEL}', 'wb').write(bytes.fromhex(open('/srv/wheel.hex').read()))\"")
    do("cd /srv/index/simple && for folder in *; do (cd $folder && for file in *.whl; do echo \"<a href='$file'>$file</a>\"; done > index.html); done")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    do(f"{new} -subj '/CN=The index CA' -addext keyUsage=critical,keyCertSign -keyout /srv/index-ca.key -out /srv/index.crt")
    leaf = "-subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE"
    do(f"{new} {leaf} -CA /srv/index.crt -CAkey /srv/index-ca.key -keyout /srv/index.pem -out /srv/leaf.crt && cat /srv/leaf.crt >> /srv/index.pem")
    do("cp /srv/index.crt /usr/local/share/ca-certificates/index.crt && update-ca-certificates")
    farm.on_host("/srv/index.py", INDEX.replace("TOKEN", TOKEN))
    do("systemctl stop index; systemd-run --quiet --unit=index --collect python3 /srv/index.py")
    do("timeout 20 sh -c 'until curl --silent --output /dev/null https://localhost:8443/; do sleep 0.1; done'")
    yield {"url": "https://localhost:8443/simple/", "user": "deploy", "password": TOKEN}
    do("systemctl stop index; rm /usr/local/share/ca-certificates/index.crt; update-ca-certificates --fresh")


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_private_index_is_opened_and_its_password_is_left_nowhere(farm, index, installer):
    name = f"private-{installer}"
    app = {"name": name, "source": {"package": "portico-greeting", "version": "1.0"}, "installer": installer, "index": index}
    wrong = farm.deploy({**app, "index": {**index, "password": "a-wrong-one"}})
    assert not wrong.ok and "installing its package" in wrong.output and "a-wrong-one" not in wrong.output, wrong.output
    run = farm.deploy(app, flags=("-vvv",))
    assert run.ok, run.output
    assert farm.answer(name) == "from a private index"
    assert farm.deploy({**app, "index": {**index, "password": "another-one-by-now"}}).changed == {farm.name: 0}
    # The play was told it in a file of variables, which -vvv does not show.
    assert TOKEN not in run.output
    assert farm.host.run(f"grep -r --files-with-matches {TOKEN} /srv/portico /run /etc /opt /var/lib/portico /root /tmp").stdout == ""
    assert TOKEN not in farm.host.check_output("journalctl --no-pager --since -10min")
