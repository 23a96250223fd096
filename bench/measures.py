"""All measures by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from bench.echo import echo
from bench.figures import Figures
from bench.files import large, small
from bench.forwarding import forward
from bench.idle import idle, many
from bench.logins import connections, run_true, tsh
from bench.peers import Peer
from bench.transfers import four_streams, jump, one_stream


@frozen
class Measure:
    """``once``: what hardly differs from round to round is measured in the first only. ``last``: after all the rest."""

    run: Callable[[Peer, Figures], None]
    once: bool = False
    last: bool = False


MEASURES: dict[str, Measure] = {
    "idle": Measure(idle, once=True),
    "stream": Measure(one_stream),
    "four": Measure(four_streams),
    "jump": Measure(jump),
    "files": Measure(large),
    "small": Measure(small),
    "forward": Measure(forward),
    "connections": Measure(connections),
    "true": Measure(run_true),
    "echo": Measure(echo),
    "tsh": Measure(tsh, once=True),
    "many": Measure(many, once=True, last=True),
}
