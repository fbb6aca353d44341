"""Who takes part in the simulated round of round_course.py, and what becomes of it."""

import dataclasses
from typing import NamedTuple


@dataclasses.dataclass
class Client:
    """What a client's own work takes at its server, seconds, and what became of it."""

    cluster: int
    server: int
    samples: list  # of its planned local steps
    uploads: int
    stays: int
    load_s: float
    deliver_s: float
    forward_s: list
    send_s: list
    serve_s: list  # the server's training on this client's samples, as the server is shared
    receive_s: list
    backward_s: list
    started: bool = False
    steps: int = 0
    out_s: float = 0.0
    finished: bool = False
    counts: bool = False

    @property
    def arrives_s(self):
        """When its front half is at the front aggregation server."""
        return self.out_s + self.deliver_s

    def rest_s(self, step):
        """From this local step to delivering, if nobody holds it up."""
        parts = self.forward_s, self.send_s, self.serve_s, self.receive_s, self.backward_s
        return sum(sum(part[step:]) for part in parts) + self.deliver_s

    def step_s(self, step):
        """This local step and delivering, if nobody holds it up."""
        parts = self.forward_s, self.send_s, self.serve_s, self.receive_s, self.backward_s
        return sum(part[step] for part in parts) + self.deliver_s

    def uploaded(self):
        """Samples of each local step whose smashed data goes on to the cloud."""
        return self.samples[max(self.steps - self.uploads, 0) : self.steps] if self.counts else []


class Step(NamedTuple):
    """One local step of a cluster: when it began, and so on, and who was last."""

    begin_s: float
    arrived_s: float
    served_s: float
    end_s: float
    last_up: tuple  # (forward, send) seconds of the client whose smashed data came last
    last_down: tuple  # (receive, backward)


@dataclasses.dataclass
class Cluster:
    """A cluster at a server, which it shares with its tenants, itself among them."""

    server: int
    tenants: int
    back_load_s: float
    clients: list
    steps: list = dataclasses.field(default_factory=list)
    ready_s: float = 0.0
    trained_s: float = 0.0
    closed_s: float = 0.0


class Course(NamedTuple):
    """What became of a round."""

    clients: dict  # {place: Client} of those in a cluster that has a server
    clusters: dict  # {number: Cluster} of those that have a server and members
    phase_s: dict  # seconds until the slowest cluster closed
    margin: float  # least relative distance of two numbers on whose order the course depends
