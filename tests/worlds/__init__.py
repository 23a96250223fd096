"""What tests share: worlds to test in, clients and peers. ``cluster`` uses Python's standard library only."""
