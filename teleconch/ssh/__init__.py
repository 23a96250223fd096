"""Conch made fit: transport, certificates, channels, relay. Knows no user, role or cluster."""
