"""The deployment demonstration: real SuperNodes on loopback beside a simulation."""
