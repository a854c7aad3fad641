"""A renewal that goes wrong is nothing that a visitor sees, is told by the unit that failed, and heals."""

from __future__ import annotations


def test_visitors_are_served_all_along(fault, outcome):
    if not fault.served:
        assert outcome.visits is None
        return
    assert not outcome.visits.lost, outcome.visits
    # Each of them verified what it got.
    allowed = {outcome.old, outcome.new} if fault.renewed else {outcome.old}
    assert outcome.old in outcome.visits.labels and set(outcome.visits.labels) <= allowed, outcome.visits


def test_the_unit_says_what_went_wrong(fault, outcome):
    assert outcome.run.ok == fault.ok, outcome.run.said
    assert fault.says in outcome.run.said, outcome.run.said


def test_the_certificate_is_the_old_one_or_the_new_one(fault, outcome):
    assert (outcome.new not in (outcome.old, "")) == fault.renewed or not fault.served, outcome.run.said
    assert outcome.orders <= fault.orders, f"{outcome.orders} orders\n{outcome.run.said}"


def test_the_next_run_heals(fault, outcome):
    said = "\n".join(run.said for run in outcome.healing)
    assert all(run.ok for run in outcome.healing), said
    assert outcome.healed, said
    assert (outcome.healed == outcome.old) == (fault.heals == "nothing"), said
    assert outcome.again == 0, "it is renewed at every run"
