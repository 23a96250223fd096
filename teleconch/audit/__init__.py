"""Audit events: who did what, from where, and whether it was allowed.

::

    whoever decided ── an event ──▶ Emitter ──▶ the log (service.log), and what a root hands in beside it
    auth, ssh, node, proxy          handed in by service

An event is a frozen value (``events``). It is made and emitted once, in the package that decided: a proxy that passes a
login on to the auth server does not report its result. Log lines that only say how things are going are not events.
"""
