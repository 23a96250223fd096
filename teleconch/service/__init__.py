"""Composition roots: one per role. The only places that build listeners, backends and clients."""
