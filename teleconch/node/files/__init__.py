"""Files: SFTP and scp, served by a child that is the login user, and the record of each file that was moved.

::

    daemon (Twisted)                       launcher (root)              child: the user, for good
    ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    node.program ── programs (folder) ───▶ fork, become the user ─────▶ child ─┬─ sftp_server
         │                                                                     │    sftp (packets), names,
    transfers ◀═ report socket: one JSON record for each closed file ═ report  │    handles, operations, extensions
         │                                                                     └─ lend ── the user's shell
    log: events ``sftp`` and ``scp``                                              │ ▲       └ `scp` of our folder
                                                                                  │ └──── pid and arguments ┘
                                                                                  └ scp: scp_source, scp_sink, scp_wire

The child is a fork of the launcher that never execs: Python and these modules are loaded already, so that it serves
within a few milliseconds, and it runs where the user may not read the interpreter or this package. What it imports is
the standard library's fastest part: no asyncio, no Twisted, no re. It blocks, in one thread: a slow reader costs a
sleeping process and one buffer.

The daemon opens no path that a user names. The child's reports come from a process with the user's rights, and are no
more trustworthy than the user: anyone who tampers with it can only lie about themselves, and could have copied the same
file with ``cat`` without ever coming here.
"""
