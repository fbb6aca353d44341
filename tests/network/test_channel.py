"""Rates, times and energies of the computing power network against their equations."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network import channel, ledger
from tests.compare import assert_close
from tests.oracles import network as oracle
from tests.quick import quick_jit

drawn = settings(deadline=None, max_examples=200)

shannon_rate = quick_jit(channel.shannon_rate)
communication_time = quick_jit(ledger.communication_time)
computation_time = quick_jit(ledger.computation_time)
computation_energy = quick_jit(ledger.computation_energy)


def decades(low, high):
    """Numbers spread evenly over 10**low to 10**high, as float32 holds them."""
    return st.floats(low, high).map(lambda exponent: float(np.float32(10**exponent)))


distances_km = decades(-2, 2)
bandwidths_hz = decades(5, 9)
powers_w = decades(-2, 2)
noises_w_per_hz = decades(-21, -18)
links = st.tuples(distances_km, bandwidths_hz, powers_w, noises_w_per_hz)
radios = st.tuples(decades(0, 10), bandwidths_hz, decades(-14, -6), powers_w, decades(-14, -8))
more = st.floats(1.1, 50.0)


class TestShannonRate:
    def test_the_designs_check(self):
        got = shannon_rate(0.6083754840266261, 10e6, 0.2, 3.981e-21)
        assert_close(got, 25948858.23931885, 1e-6)

    def test_the_equation_gives_the_designs_check(self):
        got = oracle.shannon_rate(0.6083754840266261, 10e6, 0.2, 3.981e-21)
        assert_close(got, 25948858.23931885, 1e-12)

    @drawn
    @given(links)
    def test_equals_the_equation(self, link):
        # 10^(-PL/10) loses up to 5e-6 in float32; a faint link must not lose more than that,
        # which log2(1 + x) would and log1p does not.
        assert_close(shannon_rate(*link), oracle.shannon_rate(*link), 2e-5)

    @drawn
    @given(links, more)
    def test_falls_with_distance_and_rises_with_power_and_bandwidth(self, link, factor):
        distance, bandwidth, power, noise = link
        rate = float(shannon_rate(*link))
        slack = 1 + 2e-5
        assert rate > 0
        assert float(shannon_rate(distance * factor, bandwidth, power, noise)) < rate
        assert float(shannon_rate(distance, bandwidth, power * factor, noise)) > rate
        assert float(shannon_rate(distance, bandwidth * factor, power, noise)) * slack > rate
        assert float(shannon_rate(distance, bandwidth, power, noise * factor)) < rate

    def test_maps_over_arrays(self):
        distance = np.array([[0.1, 0.5, 1.0], [2.0, 3.0, 0.7]], np.float32)
        got = shannon_rate(distance, 1e6, 0.1, 1e-20)
        expected = [[oracle.shannon_rate(float(d), 1e6, 0.1, 1e-20) for d in r] for r in distance]
        assert got.shape == (2, 3)
        assert_close(got, expected, 2e-5)


class TestLedger:
    def test_hierfavgs_upload(self):
        """Liu et al., table I: 32 bits for each of 21,840 parameters at 1 MHz and 0.5 W.

        The equation gives 0.12321 s; the design prints 0.1233, so its last digit is not held to.
        """
        time_s = float(communication_time(32 * 21_840, 1e6, 1e-8, 0.5, 1e-10))
        assert_close(time_s, 0.1233, 0, atol=1e-4)
        assert_close(time_s, 32 * 21_840 / (1e6 * np.log2(51.0)), 1e-6)
        assert_close(0.5 * time_s, 0.0616, 0, atol=5e-5)

    @drawn
    @given(radios)
    def test_communication_equals_the_equation(self, radio):
        expected = oracle.communication_time(*radio)
        assert_close(communication_time(*radio), expected, 5e-6)

    @drawn
    @given(radios, more)
    def test_communication_slows_with_bits_and_noise_and_quickens_with_gain(self, radio, factor):
        bits, bandwidth, gain, power, noise = radio
        time_s = float(communication_time(*radio))
        assert float(communication_time(bits * factor, bandwidth, gain, power, noise)) > time_s
        assert float(communication_time(bits, bandwidth, gain * factor, power, noise)) < time_s
        assert float(communication_time(bits, bandwidth, gain, power * factor, noise)) < time_s
        assert float(communication_time(bits, bandwidth, gain, power, noise * factor)) > time_s

    def test_nothing_to_send_takes_no_time(self):
        assert float(communication_time(0.0, 1e6, 1e-8, 0.5, 1e-10)) == 0.0
        assert float(computation_time(0.0, 20.0, 1e9)) == 0.0

    @drawn
    @given(decades(0, 10), decades(0, 3), decades(7, 11), decades(-29, -26))
    def test_computation_equals_the_equations(self, bits, cycles, frequency, capacitance):
        time_s = oracle.computation_time(bits, cycles, frequency)
        assert_close(computation_time(bits, cycles, frequency), time_s, 1e-6)
        energy_j = oracle.computation_energy(bits, cycles, frequency, capacitance)
        got = float(computation_energy(bits, cycles, frequency, capacitance))
        assert_close(got, energy_j, 1e-6)

    def test_energy_grows_with_the_square_of_the_frequency(self):
        slow = float(computation_energy(1e6, 20.0, 1e9, 2e-28))
        fast = float(computation_energy(1e6, 20.0, 3e9, 2e-28))
        assert_close(slow, 2e-3, 1e-6)  # 1e-28 * 20 * 1e6 * 1e18
        assert_close(fast, 9 * slow, 1e-6)
