"""Dialogue data sets, their users and domain lexicons (Qin et al., DAC'24)."""
