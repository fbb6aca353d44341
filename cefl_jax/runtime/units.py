"""Numbers and quantities as text, and the units of axes: for the console, pictures and reports."""

TIME_UNITS = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("days", 86400.0))
BYTE_UNITS = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))
ENERGY_UNITS = (("mJ", 1e-3), ("J", 1.0), ("kJ", 1e3), ("MJ", 1e6), ("GJ", 1e9))
MAX_PLAIN = 999_999.5  # numbers from here on have an exponent


def format_number(value: float, digits: int = 3) -> str:
    """Returns a number as text with so many significant digits, or all before the point.

    From a million on, and below 0.0001, it has an exponent: 2.303, 12,346, 1.23e+06, 4e-05. What
    is not finite is nan, inf or -inf.
    """
    whole = 10.0**digits - 0.5 <= abs(value) < MAX_PLAIN  # "g" would give it an exponent
    return f"{value:,.0f}" if whole else f"{value:,.{digits}g}"


def time_unit(time_s: float) -> tuple[str, float]:
    """Returns name and length (s) of the largest unit that fits at least twice, else the second."""
    fitting = [unit for unit in TIME_UNITS if time_s >= 2.0 * unit[1]]
    return fitting[-1] if fitting else TIME_UNITS[0]


def format_time(time_s: float) -> str:
    """Returns the seconds as text, such as 3.4 h."""
    name, length_s = time_unit(time_s)
    return f"{format_number(time_s / length_s)} {name}"


def format_bytes(num_bytes: float) -> str:
    """Returns the bytes as text, such as 12.5 MB; a MB is 10^6 bytes."""
    return _in_largest(num_bytes, BYTE_UNITS)


def format_energy(energy_j: float) -> str:
    """Returns the joules as text, such as 1.25 kJ."""
    return _in_largest(energy_j, ENERGY_UNITS)


def _in_largest(value, units):
    fitting = [unit for unit in units if value >= unit[1]]
    name, size = fitting[-1] if fitting else units[0]
    return f"{format_number(value / size)} {name}"
