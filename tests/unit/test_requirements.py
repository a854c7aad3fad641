"""What a source asks of its environment, and everything that is part of it."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.module_utils.requirements import RequirementsError, read


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


PROJECT = "[project]\nname = 'shop'\n"


@pytest.mark.parametrize(
    ("files", "kind", "path"),
    [
        ({"uv_lock": "", "pyproject_toml": PROJECT, "requirements_txt": "a\n"}, "lock", "uv.lock"),
        ({"pyproject_toml": PROJECT, "requirements_txt": "a\n"}, "requirements", "requirements.txt"),
        ({"pyproject_toml": PROJECT}, "project", "pyproject.toml"),
        ({"uv_lock": "", "requirements_txt": "a\n"}, "requirements", "requirements.txt"),
        ({"pyproject_toml": "[build-system]\nrequires = []\n"}, "project", "pyproject.toml"),
    ],
)
def test_it_is_found_where_nobody_names_it(tmp_path, files, kind, path):
    wanted = read(write(tmp_path, **files), None)
    assert (wanted.kind, wanted.path) == (kind, path)


@pytest.mark.parametrize(
    ("named", "kind"), [("deploy/production.txt", "requirements"), ("backend/uv.lock", "lock"), ("backend/pyproject.toml", "project")]
)
def test_a_named_file_may_be_of_any_kind_and_anywhere_inside(tmp_path, named, kind):
    source = write(tmp_path, deploy__production_txt="a==1\n", backend__uv_lock="", backend__pyproject_toml=PROJECT)
    assert read(source, named).kind == kind


@pytest.mark.parametrize(
    ("files", "named", "words"),
    [
        ({}, None, ["no uv.lock", "no requirements.txt", "Set the key requirements"]),
        ({"reqs_txt": ""}, None, ["It has reqs.txt"]),
        ({"pyproject_toml": "[tool.ruff]\n"}, None, ["without a [project]"]),
        ({"reqs_txt": ""}, "requirements.txt", ["requirements.txt is not a file", "There are reqs.txt"]),
        ({"uv_lock": ""}, "uv.lock", ["pyproject.toml is not a file", "uv.lock asks for it"]),
        ({"requirements_txt": "a\n-r more.txt\n"}, None, ["more.txt is not a file", "requirements.txt, line 2"]),
        ({"requirements_txt": "-r ../more.txt\n"}, None, ["../more.txt is not inside the source"]),
        ({"requirements_txt": "-c /etc/passwd\n"}, None, ["/etc/passwd is not inside the source"]),
        ({"requirements_txt": "-r https://x.example/r.txt\n"}, None, ["line 1", "from elsewhere"]),
        ({"requirements_txt": "a\n-e .\n"}, None, ["line 2", "-e .", "Write . alone"]),
        ({"requirements_txt": "--editable=./lib\n"}, None, ["ties the environment"]),
    ],
)
def test_a_mistake_names_the_file_and_the_line(tmp_path, files, named, words):
    (tmp_path / "source").mkdir()
    with pytest.raises(RequirementsError) as told:
        read(write(tmp_path / "source", **files), named)
    for word in words:
        assert word in str(told.value)


def test_a_link_out_of_the_source_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "requirements.txt").symlink_to("../secret")
    with pytest.raises(RequirementsError, match="not inside the source"):
        read(str(tmp_path / "source"), None)


@pytest.mark.parametrize("include", ["-r more/base.txt", "-c more/base.txt", "-rmore/base.txt", "--requirement more/base.txt", "--constraint=more/base.txt", "-r \\\n  more/base.txt"])
def test_what_is_included_is_part_of_it(tmp_path, include):
    source = write(tmp_path, requirements_txt=f"a==1\n{include}  # the rest\n", more__base_txt="-r deep.txt\n", more__deep_txt="b==1\n-r ../requirements.txt\n")
    before = read(source, None)
    assert [path for path, _text in before.texts] == ["requirements.txt", "more/base.txt", "more/deep.txt"]
    write(tmp_path, more__deep_txt="b==2\n")
    assert read(source, None).texts != before.texts


@pytest.mark.parametrize(
    ("line", "takes"),
    [
        ("Django", False),
        ("Django==5.2  # good", False),
        ("celery[redis] >= 5 ; python_version > '3.9'", False),
        ("a~=1.0 --hash=sha256:00", False),
        ("a @ https://x.example/a.whl", False),
        ("https://x.example/a-1.0.tar.gz", False),
        ("git+https://x.example/a.git@v1", False),
        ("-e git+https://x.example/a.git@v1#egg=a", False),
        ("--index-url https://x.example/simple", False),
        ("--find-links https://x.example/", False),
        ("# ./lib", False),
        (".", True),
        ("./lib", True),
        (".[extra]", True),
        ("wheels/a-1.0-py3-none-any.whl", True),
        ("a-1.0-py3-none-any.whl", True),
        ("a @ file:///srv/a", True),
        ("--find-links wheels", True),
        ("-f ./wheels", True),
    ],
)
def test_a_path_of_the_source_binds_the_environment_to_it(tmp_path, line, takes):
    assert read(write(tmp_path, requirements_txt=f"{line}\n"), None).takes_source is takes


@pytest.mark.parametrize(
    ("lock", "takes"),
    [
        ('[[package]]\nname = "shop"\nsource = { virtual = "." }\n', False),
        ('[[package]]\nname = "a"\nsource = { registry = "https://x.example/simple" }\n', False),
        ('[[package]]\nname = "shop"\nsource = { editable = "." }\n', True),
        ('[[package]]\nname = "a"\nsource = { directory = "lib/a" }\n', True),
        ('[[package]]\nname = "a"\nsource = { path = "a.whl" }\n', True),
    ],
)
def test_a_lock_says_whether_the_project_itself_is_installed(tmp_path, lock, takes):
    assert read(write(tmp_path, uv_lock=lock, pyproject_toml=PROJECT), None).takes_source is takes


def test_hashes_are_seen_wherever_they_are(tmp_path):
    source = write(tmp_path, requirements_txt="-r base.txt\n", base_txt="a==1 \\\n    --hash=sha256:00\n")
    assert read(source, None).hashed
    assert not read(write(tmp_path, base_txt="a==1\n"), None).hashed
