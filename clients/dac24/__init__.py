"""Qin et al. (DAC'24): what a device keeps of a stream, and writes itself."""
