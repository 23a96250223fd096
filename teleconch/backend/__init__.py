"""Stored state as keys and values: one interface, one acceptance suite, several stores."""
