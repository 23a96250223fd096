"""A live session: something that runs, and the parties that take part in it. Neither knows what the other is.

::

    program.Program                  live.Live                              parties.Party
    what runs (a process of a   ◀──  id, the end and its reason        ──▶  who takes part (an SSH channel:
    user: node.program)              parties.Parties: who they are,         channel_party.ChannelParty)
                                     what each may do, who is slow
                                          ▲
                                     registry.Registry: all that run in this process, by id

Only ``channel_party`` imports ``ssh``.
"""
