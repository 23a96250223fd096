"""Copies of ``tsh scp``.

::

    copying ──> tree: stat, list, open, read and write at an offset
                  ├ local    this machine
                  └ sftp     a node, over the subsystem ``sftp``
"""
