"""What was aimed for: teleconch's medians against the others' of the same run."""

from __future__ import annotations

from attrs import frozen

from bench.figures import Figures
from bench.forwarding import PARALLEL_FORWARDS
from bench.idle import FEW, MANY

OURS, SSHD, CONCH, ASYNCSSH = "teleconch", "OpenSSH sshd", "stock Conch", "AsyncSSH"


@frozen
class Target:
    """``figure`` at least (or at most) ``limit`` times ``theirs`` of ``peer``; without a peer, ``limit`` itself."""

    figure: str
    sign: str
    limit: float
    peer: str = ""
    theirs: str = ""

    def wanted(self) -> str:
        """In words."""
        against = f" × {self.peer}" if self.peer else ""
        other = f" ({self.theirs})" if self.theirs else ""
        return f"{self.sign} {self.limit:g}{against}{other}"

    def reached(self, figures: Figures) -> float | None:
        """The ratio, or the figure; None where it was not measured."""
        ours = figures.median(self.figure, OURS)
        if ours is None or not self.peer:
            return ours
        theirs = figures.median(self.theirs or self.figure, self.peer)
        return ours / theirs if theirs else None

    def met(self, reached: float) -> bool:
        return reached >= self.limit if self.sign == "≥" else reached <= self.limit


_CIPHERS = ("aes128-gcm", "aes256-gcm", "chacha20")
TARGETS: tuple[Target, ...] = (
    *(Target(f"down {cipher}", "≥", 1.0, SSHD) for cipher in _CIPHERS[:2]),
    *(Target(f"up {cipher}", "≥", 1.2, SSHD) for cipher in _CIPHERS[:2]),
    *(Target(f"{way} chacha20", "≥", 0.8, SSHD) for way in ("down", "up")),
    *(
        Target(f"{way} {cipher}", "≥", 2.0, CONCH, f"{way} aes128-ctr")
        for way in ("down", "up")
        for cipher in (*_CIPHERS, "aes128-ctr")
    ),
    Target("jump down", "≥", 1.0, SSHD),
    Target("jump up", "≥", 1.0, SSHD),
    *(Target(f"sftp {way}", "≥", 0.9, SSHD) for way in ("get", "put")),
    *(Target(f"small files {way}{how}", "≥", 1.0, SSHD) for how in ("", ", connected") for way in ("get", "put")),
    *(Target(f"-L {way}", "≥", 1.0, SSHD) for way in ("down", "up")),
    Target(PARALLEL_FORWARDS, "≤", 1.0, SSHD),
    Target("ssh HOST true", "≤", 1.0, SSHD),
    Target("logins per CPU second", "≥", 5.0, SSHD),
    Target("logins per CPU second", "≥", 1.0, ASYNCSSH),
    Target(f"idle connection, of {FEW}", "≤", 40),
    Target(f"idle connection, of {MANY}", "≤", 40),
    Target(f"ssh HOST true beside {MANY}, slowest", "≤", 1000),
    Target("keystroke echo p99", "≤", 2.0, SSHD),
    Target("tsh ÷ ssh -J", "≤", 1.5),
)
