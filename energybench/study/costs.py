"""What joules cost, with the prices that a user gives: nothing is assumed."""

from __future__ import annotations

from dataclasses import dataclass

from energybench.errors import ConfigError

J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Rates:
    """What the user says a kilowatt-hour costs.

    Attributes:
        price_per_kwh: in `currency`; None: no price.
        currency: a word behind the amount; "" for none.
        pue: power usage effectiveness: energy of the whole site / energy of its computers; None: joules as measured.
        carbon_g_per_kwh: grams of CO2 equivalent; None: no carbon.
    """

    price_per_kwh: float | None = None
    currency: str = ""
    pue: float | None = None
    carbon_g_per_kwh: float | None = None

    def __post_init__(self) -> None:
        for name in ("price_per_kwh", "carbon_g_per_kwh"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name.replace('_', '-')} {value}: give a number from 0")
        if self.pue is not None and not 1 <= self.pue < float("inf"):
            raise ConfigError(f"pue {self.pue}: a site takes at least what its computers take; give a number from 1")
        if self.currency and self.price_per_kwh is None:
            raise ConfigError(f"currency {self.currency}: give a price too (--price-per-kwh)")

    @property
    def given(self) -> bool:
        """Whether anything is asked of them."""
        return self.price_per_kwh is not None or self.carbon_g_per_kwh is not None or self.pue is not None

    def of(self, energy_j: float) -> Cost:
        """What some joules of the devices cost."""
        kwh = energy_j * (self.pue or 1.0) / J_PER_KWH
        return Cost(
            kwh,
            None if self.price_per_kwh is None else kwh * self.price_per_kwh,
            None if self.carbon_g_per_kwh is None else kwh * self.carbon_g_per_kwh,
        )


@dataclass(frozen=True)
class Cost:
    """Of some joules.

    Attributes:
        kwh: kilowatt-hours, times the PUE where one was given.
        price: in the user's currency; None without a price.
        carbon_g: grams of CO2 equivalent; None without an intensity.
    """

    kwh: float
    price: float | None
    carbon_g: float | None
