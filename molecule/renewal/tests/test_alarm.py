"""A renewal that fails is told: by the unit, by a metric, and by a command of the user's."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from acme_scene import Host, Run, together
from scene import MIDDLE_AGE, OUTAGE

FOLDER = "/var/lib/prometheus/node-exporter"
COMMAND = """\
#!/bin/sh
{ echo "$PORTICO_STATE: $PORTICO_CERTIFICATES"; cat; } >>/root/alarms
"""
PARSE = """\
import json, pathlib
from prometheus_client.parser import text_string_to_metric_families as families
text = pathlib.Path("/var/lib/prometheus/node-exporter/portico-certificates.prom").read_text()
print(json.dumps([[sample.name, sample.labels, sample.value] for family in families(text) for sample in family.samples]))
"""


@dataclass
class Told:
    """What a person and a machine can know of one host."""

    run: Run
    failed: str
    metrics: dict[str, float]
    """By name and certificate."""
    served: dict[str, str]
    """Name to the serial number in the metrics."""
    alarms: list[str]
    serial: str


def told(host: Host, run: Run) -> Told:
    samples = json.loads(host.ask("python3 -", PARSE))
    return Told(
        run,
        host.ask("systemctl --failed --no-legend --plain"),
        {f"{name} {labels.get('certificate', '')}".strip(): value for name, labels, value in samples if "serial" not in labels},
        {labels["name"]: labels["serial"] for _name, labels, _value in samples if "serial" in labels},
        host.ask("cat /root/alarms 2>/dev/null || true").splitlines(),
        host.serial(f"shop.{host.name}.example.test"),
    )


@pytest.fixture(scope="module")
def story(scene):
    """A renewal fails, fails again, and succeeds."""
    scene.begin()
    together(scene.hosts, lambda host: host.ask(f"mkdir -p {FOLDER} && cat >/usr/local/bin/alarm && chmod +x /usr/local/bin/alarm", COMMAND))
    run = scene.publish(certbot_alarm_command=["/usr/local/bin/alarm"])
    assert run.ok, run.output
    together(scene.hosts, lambda host: host.age("shop", scene.acme, MIDDLE_AGE))
    with scene.acme.fault({"resource": "newOrder", "problem": OUTAGE}):
        steps = [together(scene.hosts, lambda host: told(host, host.renew())) for _time in range(2)]
    steps.append(together(scene.hosts, lambda host: told(host, host.renew())))
    return steps


@pytest.fixture
def failed(story, name):
    return story[0][name]


@pytest.fixture
def healed(story, name):
    return story[2][name]


def test_the_unit_has_failed(failed):
    assert not failed.run.ok and "down for maintenance" in failed.run.said
    assert failed.failed.startswith("certificates-renew.service ")


def test_the_metrics_say_which_certificate_is_not_well(failed):
    assert failed.metrics["portico_certificate_ok shop"] == 0
    assert failed.metrics["portico_certificate_ok second"] == 1
    assert failed.metrics["portico_certificate_last_success_timestamp_seconds shop"] < failed.metrics["portico_certificates_last_run_timestamp_seconds"]


def test_the_metrics_say_what_is_served(failed, name):
    assert failed.served[f"shop.{name}.example.test"] == failed.serial
    assert set(failed.served) == {f"{label}.{name}.example.test" for label in ("shop", "www.shop", "second")}


def test_the_command_is_told_what_is_wrong(failed):
    assert failed.alarms[0] == "failed: shop"
    assert any(line.startswith("shop: ") and "down for maintenance" in line for line in failed.alarms), failed.alarms


def test_the_command_is_not_told_again(story, failed, name):
    assert story[1][name].alarms == failed.alarms


def test_when_it_is_over_all_of_them_say_so(failed, healed):
    assert healed.run.ok and healed.failed == ""
    assert healed.metrics["portico_certificate_ok shop"] == 1
    assert healed.metrics["portico_certificate_not_after_timestamp_seconds shop"] > failed.metrics["portico_certificate_not_after_timestamp_seconds shop"]
    assert healed.serial != failed.serial
    assert "resolved: shop" in healed.alarms
