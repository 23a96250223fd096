"""SFTP version 3 (draft-ietf-secsh-filexfer-02) as bytes, for the node's server and for ``tsh scp``: ``packets`` and
``attributes``. The standard library only, and no I/O: children of the launcher read and write it."""
