"""The launcher: the small process beside the node's daemon that starts, signals and reaps the users' processes.

::

    launcher       the loop: start, signal, kill, exit
      ├ signals    sends them with the user's rights
      └ a child for each session:
          login                 who may enter: accounts, greeting, pam (attend stays to close it), records
          apart, oom            what it does not keep of the launcher's
          rc, variables         its scripts and environment; then exec

It is run with ``python -I -S`` beside a daemon with secrets, as root if the node is root: it imports the standard
library only.
"""
