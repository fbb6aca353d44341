"""The links of a network from a file: modelled or measured, and such as float32 can hold."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from cefl_jax.network.sources.assembly import Plan, mean_snr
from cefl_jax.network.sources.document import (
    LEAST,
    MOST,
    DocumentError,
    check_keys,
    check_list,
    check_number,
)


def modelled_snr(
    plan: Plan, noise_w_per_hz: float
) -> tuple[Float64[np.ndarray, "N servers"], Float64[np.ndarray, "N servers"]]:
    """Signal-to-noise ratios by the path-loss model.

    Args:
      plan: Plan.
      noise_w_per_hz: noise density, from LEAST to MOST.
    Returns:
      Up and down.
    Raises:
      DocumentError: for a link whose ratio or rate is not from LEAST to MOST.
    """
    links = mean_snr(plan, noise_w_per_hz)
    bandwidth = _bandwidth_hz(plan)
    for direction, snr in zip(("to", "from"), links, strict=True):
        for what, values in (
            ("signal-to-noise ratio", snr),
            ("rate in bit/s", bandwidth * np.log1p(snr) / np.log(2)),
        ):
            if (wrong := _outside(values)) is not None:
                client, server = wrong
                name = "front" if server == snr.shape[1] - 1 else f"edges[{server}]"
                raise DocumentError(
                    f"client {client} has a link {direction} {name} with the {what} "
                    f"{values[wrong]:g}, which needs to be from {LEAST:g} to {MOST:g}; change "
                    "transmit_w, bandwidth_hz or position_km of one of them, or noise_w_per_hz"
                )
    return links


def measured_snr(
    links: Any, plan: Plan
) -> tuple[Float64[np.ndarray, "N servers"], Float64[np.ndarray, "N servers"]]:
    """Signal-to-noise ratios that make the rates of a file, by Shannon's formula.

    Args:
      links: the entry `links` of a file.
      plan: Plan.
    Returns:
      Up and down.
    Raises:
      DocumentError: for an entry of another form, and a rate whose ratio is not from LEAST to MOST.
    """
    directions = ("up_bps", "down_bps")
    check_keys(links, "links", directions)
    return tuple(_snr_of_rates(links[name], f"links.{name}", plan) for name in directions)


def _snr_of_rates(rows, where, plan):
    num_clients, num_servers = len(plan.clients.kind), len(plan.backhaul_bps)
    check_list(rows, where, num_clients)
    for client, row in enumerate(rows):
        check_list(row, f"{where}[{client}]", num_servers)
        for server, rate in enumerate(row):
            check_number(rate, f"{where}[{client}][{server}]")
    bits_per_hz = np.array(rows, np.float64) / _bandwidth_hz(plan)
    with np.errstate(over="ignore"):  # infinite is outside too
        snr = np.expm1(bits_per_hz * np.log(2))
    if (wrong := _outside(snr)) is not None:
        client, server = wrong
        least, most = np.log1p([LEAST, MOST]) / np.log(2)
        raise DocumentError(
            f"{where}[{client}][{server}]={rows[client][server]:g} is {bits_per_hz[wrong]:g} bit/s "
            f"for each Hz of the client's bandwidth_hz, which needs to be from {least:.2g} to "
            f"{most:.2g}; correct one of the two"
        )
    return snr


def _bandwidth_hz(plan):
    """f64[N, 1] of each client's links."""
    values = np.array([device.bandwidth_hz for device in plan.classes.values()], np.float64)
    return values[plan.clients.kind][:, None]


def _outside(values):
    """The first place of a value that is not from LEAST to MOST, or None."""
    wrong = ~((values >= LEAST) & (values <= MOST))
    return np.unravel_index(wrong.argmax(), wrong.shape) if wrong.any() else None
