"""Apps of one host: what becomes of one is nothing to the others."""

from __future__ import annotations

import pytest

OTHERS = ("patchman", "money", "notebook")


@pytest.fixture
def undisturbed(apps):
    """The same processes answer afterwards, and no visitor of theirs has noticed anything."""
    before = {unit: pid for unit, pid in apps.main_processes().items() if "probe" not in unit}
    assert before
    with apps.load(*OTHERS) as load:
        yield
    print(load.report)
    assert not load.report.lost, load.report
    assert {unit: pid for unit, pid in apps.main_processes().items() if "probe" not in unit} == before


@pytest.mark.usefixtures("undisturbed")
def test_a_release_that_cannot_run_is_its_own_trouble(apps, someone, tmp_path):
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "wsgi.py").write_text("raise SystemExit('broken')\n")
    run = apps.deploy(source={"path": str(tmp_path)})
    assert not run.ok and 'The app "probe" failed' in run.output, run.output
    assert someone.get(f"https://{apps.site('probe')}/").status == 200


@pytest.mark.usefixtures("undisturbed")
def test_an_app_that_dies_takes_nobody_with_it(apps, someone, crash):
    (unit,) = (unit for unit in apps.main_processes() if "probe" in unit)
    crash(unit)
    assert someone.get(f"https://{apps.site('probe')}/").status == 200


@pytest.mark.usefixtures("undisturbed")
def test_an_app_that_is_removed_takes_its_own_along_and_no_more(apps):
    run = apps.deploy(state="absent")
    assert run.ok, run.output
    host = apps.host
    # It ends with 1 where it lists nothing.
    assert host.run("systemctl list-unit-files --no-legend 'portico-probe*'").stdout == ""
    assert not host.user("portico-probe").exists
    for path in ("/srv/portico/probe", "/etc/portico/apps/probe", "/run/portico/probe"):
        assert not host.file(path).exists, path
    # What it has written is its data.
    assert host.file("/var/lib/portico/apps/probe").is_directory
