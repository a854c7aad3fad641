"""Where nginx comes from: keys that are told apart by their fingerprints, apt's two files, and the words for mistakes."""

from __future__ import annotations

import hashlib

import pytest

from ansible_collections.portico.web.plugins.module_utils import openpgp, repositories, vendors
from ansible_collections.portico.web.plugins.module_utils.files import read
from ansible_collections.portico.web.plugins.plugin_utils import modules
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.render import Host, base
from ansible_collections.portico.web.plugins.plugin_utils.repositories import asked, normalise, refuse_to_replace


def packet(tag, body, new=False):
    """A packet as old programs write it, or as new ones do."""
    if new:
        length = len(body)
        written = bytes([length]) if length < 192 else bytes([((length - 192) >> 8) + 192, (length - 192) & 0xFF])
        return bytes([0xC0 | tag]) + written + body
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


def key(number, new=False, tag=6):
    """A key that is none, with a name and a signature."""
    body = b"\x04" + number.to_bytes(4, "big") + b"\x01" + bytes(300)
    whole = packet(tag, body, new) + packet(13, b"somebody", new) + packet(2, bytes(250), new)
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper(), whole


ONE, FIRST = key(1)
OTHER, SECOND = key(2, new=True)
DEBIAN = {"ID": "debian", "VERSION_CODENAME": "trixie"}


def repository(**given):
    return {**normalise({"channel": "stable", "fingerprints": [ONE]}), "key": None, "key_url": "https://example.com/key.asc", **given}


@pytest.mark.parametrize("written", [bytes, lambda content: openpgp.armoured(content).encode(), lambda content: b"Comment\r\n" + openpgp.armoured(content).replace("\n", "\r\n").encode()])
def test_keys_are_told_apart_and_only_those_that_are_named_are_kept(written):
    content = written(FIRST + SECOND)
    assert list(openpgp.keys(content)) == [ONE, OTHER]
    assert openpgp.chosen(content, [OTHER]) == SECOND
    assert openpgp.chosen(content, [OTHER, ONE, "0" * 40]) == FIRST + SECOND
    with pytest.raises(ValueError, match=f"has the keys {ONE}, {OTHER}, and the fingerprint of none of them"):
        openpgp.chosen(content, ["0" * 40])


@pytest.mark.parametrize(
    ("stray", "takes_a_signature_along"),
    [(packet(6, b"\x03" + bytes(60)), True), (packet(6, b"\x06" + bytes(60)), True), (packet(8, b"\x00" + bytes(60)), False)],
    ids=["an older key", "a newer key", "something else"],
)
def test_nothing_rides_along_behind_a_key(stray, takes_a_signature_along):
    signature = packet(2, bytes(9))
    assert openpgp.chosen(FIRST + stray, [ONE]) == FIRST
    assert openpgp.chosen(FIRST + stray + signature + SECOND, [ONE, OTHER]) == FIRST + (b"" if takes_a_signature_along else signature) + SECOND


def test_an_empty_line_may_have_blanks_in_it():
    assert list(openpgp.keys(openpgp.armoured(FIRST).replace("\n\n", "\nComment: a\n \t\n", 1).encode())) == [ONE]


def test_several_blocks_are_one_file():
    assert list(openpgp.keys((openpgp.armoured(FIRST) + "\n" + openpgp.armoured(SECOND)).encode())) == [ONE, OTHER]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has no public key"),
        (b"<html>404</html>", "is no file of keys"),
        (FIRST[:100], "is no file of keys"),
        (b"\x9b", "is no file of keys"),
        (packet(13, b"somebody"), "has no public key"),
        (key(1, tag=5)[1], "has a private key"),
        (FIRST + packet(7, b"\x04"), "has a private key"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----", "has a private key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n\xc3\xa9\n-----END PGP PUBLIC KEY BLOCK-----", "is damaged"),
        (b"\xc6\xff" + (70_000).to_bytes(4, "big") + b"\x04" + bytes(69_999), "has no public key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nA\n-----END PGP PUBLIC KEY BLOCK-----", "is damaged"),
    ],
)
def test_what_is_no_key_is_refused(content, why):
    with pytest.raises(ValueError, match=why):
        openpgp.keys(content)


def test_the_files_say_where_nginx_comes_from_and_who_signs_it():
    texts = repositories.texts(repository(), DEBIAN, FIRST)
    sources, pin = texts[repositories.SOURCES], texts[repositories.PREFERENCES]
    assert "\nTypes: deb\nURIs: https://nginx.org/packages/debian\nSuites: trixie\nComponents: nginx\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n " in sources
    assert '\nPackage: nginx nginx-*\nPin: origin "nginx.org"\nPin-Priority: 900\n' in pin


@pytest.mark.parametrize(
    ("given", "release", "url"),
    [
        ({"channel": "mainline"}, {"ID": "ubuntu", "VERSION_CODENAME": "noble"}, "https://nginx.org/packages/mainline/ubuntu"),
        ({"channel": "stable"}, DEBIAN, "https://nginx.org/packages/debian"),
        ({"url": "http://mirror.example.com:8080/nginx/"}, {"ID": "devuan", "VERSION_CODENAME": "excalibur"}, "http://mirror.example.com:8080/nginx"),
        ({"url": "file:/srv/nginx"}, DEBIAN, "file:/srv/nginx"),
        ({"url": "file:///srv/nginx/"}, DEBIAN, "file:/srv/nginx"),
    ],
)
def test_where_it_is(given, release, url):
    assert repositories.address(normalise(given), release) == url


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://Mirror.Example.com:8443/nginx", "Mirror.Example.com"), ("http://[2001:db8::1]:80/nginx", "2001:db8::1"), ("file:/srv/nginx", ""), ("http://192.0.2.1/nginx", "192.0.2.1")],
)
def test_its_packages_are_known_by_their_host_as_it_is_written(url, host):
    pin = repositories.texts(repository(channel=None, url=url), DEBIAN, FIRST)[repositories.PREFERENCES]
    assert f'Pin: origin "{host}"\n' in pin


def test_the_vendor_is_not_taken_for_one_that_has_packages_for_all():
    with pytest.raises(repositories.RepositoryError, match="nginx.org has packages for Debian and Ubuntu, and this host says that it is 'devuan'"):
        repositories.address(normalise({"channel": "stable"}), {"ID": "devuan"})


@pytest.fixture
def etc(tmp_path, monkeypatch):
    """A host's files of apt, which are not there yet."""
    paths = {name: str(tmp_path / name.lower()) for name in ("SOURCES", "PREFERENCES")}
    for name, path in paths.items():
        monkeypatch.setattr(repositories, name, path)
    monkeypatch.setattr(repositories, "FILES", tuple(paths.values()))
    monkeypatch.setattr(repositories, "release", lambda: DEBIAN)

    def write(wanted, keyring):
        for path, text in repositories.texts(wanted, DEBIAN, keyring).items():
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return paths["SOURCES"]

    return write


def test_a_repository_is_there_when_its_files_are_what_they_should_be(etc):
    wanted = repository(fingerprints=[ONE, OTHER])
    assert repositories.is_there(None) and not repositories.is_there(wanted)
    # Of two that are trusted the vendor may have one alone.
    sources = etc(wanted, FIRST)
    assert repositories.is_there(wanted) and not repositories.is_there(None)
    assert not repositories.is_there({**wanted, "fingerprints": [ONE]})
    assert not repositories.is_there({**wanted, "channel": "mainline"})
    assert repositories.is_there({**wanted, "key": openpgp.armoured(FIRST)}) and not repositories.is_there({**wanted, "key": openpgp.armoured(SECOND)})
    with open(sources, "a", encoding="utf-8") as file:
        file.write("Trusted: yes\n")
    assert not repositories.is_there(wanted)


def test_a_key_that_somebody_has_put_there_is_not_trusted(etc):
    wanted = repository()
    sources = etc(wanted, FIRST)
    with open(sources, "w", encoding="utf-8") as file:
        file.write(repositories.texts(wanted, DEBIAN, FIRST + SECOND)[sources])
    assert "PGP" in read(sources) and not repositories.is_there(wanted)


GIVEN = {"url": "https://mirror.example.com/nginx"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mainline", 'nginx_repository: "mainline" is a text. Write keys and values below it.'),
        ({"chanel": "stable"}, 'nginx_repository, key "chanel": "stable" is given to a key that does not exist. Did you mean "channel"?'),
        ({"channel": "stabel"}, 'nginx_repository, key "channel": "stabel" is not one of its choices. Did you mean "stable"?'),
        ({"key": "key.asc"}, 'nginx_repository, key "channel or url": is missing. Say with one of them where nginx comes from.'),
        ({**GIVEN, "channel": "stable"}, 'nginx_repository, key "channel or url": are given together. Keep one.'),
        ({"url": "mirror.example.com/nginx"}, 'nginx_repository, key "url": "mirror.example.com/nginx" is not the URL of a repository.'),
        ({"url": "https:///nginx"}, "is not the URL of a repository."),
        ({"url": "https://mirror.example.com/nginx\nTrusted: yes"}, "has a control character (U+000A) in it."),
        ({"url": "https://mirror.example.com/nginx trixie"}, "is not the URL of a repository."),
        ({"url": "https://[trusted=yes]/nginx"}, "nginx_repository"),
        ({"url": "file://mirror/nginx"}, "is not the URL of a repository."),
        ({"url": "https://ann:hunter2@mirror.example.com/nginx"}, "has a name or a password in it"),
        ({"url": "HTTPS://ann:hunter2@mirror.example.com/nginx?x"}, "has a name or a password in it"),
        ({**GIVEN, "key": "HTTPS://ann:hunter2@mirror.example.com/key.asc"}, "has a name or a password in it"),
        ({**GIVEN, "key": "https://ann:hunter2@mirror.example.com/key.asc"}, "has a name or a password in it"),
        ({**GIVEN, "fingerprints": []}, 'nginx_repository, key "fingerprints": [] is empty, so that nobody is trusted.'),
        ({**GIVEN, "fingerprints": ["2FD21310B49F6B46"]}, 'nginx_repository, key "fingerprints": "2FD21310B49F6B46" is not the fingerprint of a key. Write all 40'),
    ],
)
def test_a_mistake_is_told(value, message):
    with pytest.raises(PorticoError) as told:
        normalise(value)
    assert message in str(told.value) and "hunter2" not in str(told.value)


def test_a_fingerprint_is_written_as_gpg_shows_it():
    written = " ".join(ONE[at : at + 4].lower() for at in range(0, 40, 4))
    assert normalise({**GIVEN, "fingerprints": written})["fingerprints"] == [ONE]


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_without_one_nginx_is_the_distributions(nothing):
    assert normalise(nothing) == {} and asked({}, read) is None


def no_file(path):
    raise FileNotFoundError(2, "No such file or directory", path)


def test_a_key_of_the_controller_is_looked_at_before_the_host_is():
    given = normalise({**GIVEN, "key": "nginx.asc", "fingerprints": [OTHER]})
    told = asked(given, lambda path: openpgp.armoured(FIRST + SECOND) if path == "nginx.asc" else no_file(path))
    assert told["key"] == openpgp.armoured(SECOND) and told["key_url"] is None
    with pytest.raises(PorticoError, match='key "key": "nginx.asc" has the keys'):
        asked(given, lambda _path: openpgp.armoured(FIRST))
    with pytest.raises(PorticoError, match='key "key": "nginx.asc" cannot be read on the controller: No such file or directory. Give the key'):
        asked(given, no_file)
    with pytest.raises(PorticoError, match='key "key": has a private key in it') as told:
        asked({**given, "key": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nhunter2\n-----END PGP PRIVATE KEY BLOCK-----"}, no_file)
    assert "hunter2" not in str(told.value)
    assert asked(normalise({"channel": "stable"}), no_file)["key_url"] == "https://nginx.org/keys/nginx_signing.key"


def test_modules_are_called_as_the_vendor_calls_them():
    wanted = modules.packages(["brotli", "njs", "http-geoip2"])
    assert vendors.renamed([*wanted, "libnginx-mod-stream", "openssl"]) == ["nginx-module-brotli", "nginx-module-njs", "nginx-module-http-geoip2", "openssl"]
    with pytest.raises(PorticoError, match=r'nginx_modules: "njs" is in no package that this host\'s apt knows \(nginx-module-njs\)'):
        modules.refuse_unknown(["brotli", "njs"], ["nginx-module-njs"], is_vendors=True)
    assert modules.loaded_by(["nginx-module-brotli", "nginx", "nginx-module-njs"]) == ["ngx_http_brotli_filter_module", "ngx_http_brotli_static_module"]


def test_what_a_package_of_the_vendor_has_is_loaded_where_somebody_wants_it(tmp_path, monkeypatch):
    monkeypatch.setattr(vendors, "_LISTS", str(tmp_path))
    there = [tmp_path / f"ngx_{name}.so" for name in ("http_js_module", "stream_js_module", "http_js_module-debug")]
    for path in there:
        path.touch()
    (tmp_path / "nginx-module-njs.list").write_text("".join(f"{path}\n" for path in ("/.", *there)))
    (tmp_path / "nginx-module-perl.list").write_text("/usr/lib/nginx/modules/gone.so\n")
    loadable = vendors.loadable()
    assert loadable == {"nginx-module-njs": [str(path) for path in there[:2]]}
    assert modules.files(["njs", "perl"], loadable, []) == [str(path) for path in there[:2]]
    assert modules.files(["njs"], loadable, ["ngx_stream_js_module"]) == [str(there[0])]
    assert modules.files([], loadable, []) == []


def test_the_vendors_nginx_is_told_to_load_and_has_the_form_of_logs_that_others_name():
    plain, told = base({}, Host()), base({}, Host(is_vendors=True, loads=("/usr/lib/nginx/modules/ngx_http_js_module.so",), taken_directives=("log_format",)))
    assert "load_module" not in plain["nginx.conf"] and "log_format main" not in plain["logs.conf"]
    assert "\nload_module /usr/lib/nginx/modules/ngx_http_js_module.so;\n" in told["nginx.conf"]
    assert "\nlog_format main '" in told["logs.conf"]


@pytest.mark.parametrize(("settings", "theirs"), [({"extra_config": "log_format main '$status';"}, ()), ({}, ("log_format", "log_format main"))])
def test_who_has_a_form_of_logs_of_that_name_keeps_it(settings, theirs):
    texts = base(settings, Host(is_vendors=True, taken_directives=theirs))
    assert "log_format main '$remote_addr" not in texts["logs.conf"] and "log_format portico_json" in texts["logs.conf"]


def test_a_host_with_the_distributions_nginx_is_told_how_to_go_on():
    refuse_to_replace({"distributions": False, "installed": True, "version": [1, 29, 3]}, [])
    with pytest.raises(PorticoError, match=r"^nginx_repository: this host has nginx 1\.26\.3 of the distribution\. .* so nothing was changed\. See first that the repository has nginx and nginx-module-http-geoip2 for it\. .*'apt-get remove nginx nginx-common'"):
        refuse_to_replace({"distributions": True, "installed": True, "version": [1, 26, 3]}, ["nginx", "openssl", "libnginx-mod-http-geoip2"])
    with pytest.raises(PorticoError, match="this host has nginx of the distribution"):
        refuse_to_replace({"distributions": True, "installed": False, "version": []}, [])
