"""Stored state as keys and values: one interface, one acceptance suite, several stores.

::

    auth ──▶ Backend (interface.py)
                │   create, put, update, compare_and_swap, delete: each one commit (store.py)
                ├── commit    all changes or none; answered when they are durable
                ├── get, range, find
                ├── watch     ──▶ a bounded queue for each watcher (watch.py)
                └── sweep     removes what has expired, and tells watchers
                      │
          memory.py ──┴── sqlite.py ── worker.py   one thread writes, grouping what waits; one thread reads
                                  └── sqlite_file.py    lock, mode, schema, what went wrong
"""
