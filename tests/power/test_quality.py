import pytest

from energybench.power.quality import flags
from energybench.run.result import ChannelEnergy


def energy(energy_j=100.0, readings=60, coverage=1.0, estimated=False):
    return ChannelEnergy(energy_j, 1.0, 5.0, 10.0, 12.0, readings, 0.1, coverage, "counter", estimated)


@pytest.mark.parametrize(
    ("energies", "expected"),
    [
        ([], []),
        ([energy()], []),
        ([energy(coverage=0.99)], []),
        ([energy(coverage=0.98)], ["gaps"]),
        ([energy(readings=59)], ["few_updates"]),
        ([energy(readings=1, estimated=True)], []),
        ([energy(energy_j=None, readings=0, coverage=0.0)], ["few_updates", "gaps", "no_readings"]),
        ([energy(), energy(coverage=0.5), energy(coverage=0.5, readings=3)], ["few_updates", "gaps"]),
    ],
)
def test_flags_name_what_holds_for_at_least_one(energies, expected):
    assert flags(energies) == expected


def test_energies_may_come_from_a_generator():
    assert flags(energy(coverage=0.5) for _ in range(2)) == ["gaps"]
