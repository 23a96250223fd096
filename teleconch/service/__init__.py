"""Composition roots, one per role: the only places that build listeners, backends and clients."""
